"""The name in a certificate, out of certificates that openssl made."""

import base64
import shutil
import subprocess

import pytest

from gateway.wire.certificate import common_name
from tests import certificates

CONFIG = """
[req]
prompt = no
utf8 = yes
string_mask = {mask}
distinguished_name = subject
[subject]
{subject}
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a self-signed certificate; it skips the test where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def made(subject, mask="utf8only", *more):
        config, path = tmp_path / "openssl.cnf", tmp_path / "own.pem"
        config.write_text(CONFIG.format(mask=mask, subject=subject))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", tmp_path / "own.key", "-out", path, "-days", "2", "-config", config, *more],
            check=True, capture_output=True,
        )  # fmt: skip
        return path

    return made


@pytest.mark.parametrize("mask", ["utf8only", "nombstr", "MASK:0x0010", "MASK:0x0004"])
def test_every_type_of_text_is_read(make, mask):
    assert common_name(make("CN = ps1-gw1", mask)) == "ps1-gw1"


def test_a_name_may_be_in_any_script(make):
    assert common_name(make("CN = Zürich 港口")) == "Zürich 港口"


@pytest.mark.parametrize(
    "subject",
    ["C = CH\nO = Corridor\nOU = gateways\nCN = my-cn\nemailAddress = a@b.example",
     "CN = my-cn\n+OU = in one set with it",
     "0.OU = " + "x" * 60 + "\n1.OU = " + "y" * 60 + "\n2.OU = " + "z" * 60 + "\nCN = my-cn",
     "0.CN = my-cn\n1.CN = another"],
)  # fmt: skip
def test_it_is_the_first_common_name_wherever_it_stands(make, subject):
    assert common_name(make(subject)) == "my-cn"


def test_the_subject_counts_and_not_the_issuer(tmp_path):
    cert, _ = certificates.authority(tmp_path / "ca").issue("ps1-gw1")
    assert common_name(cert) == "ps1-gw1"


def test_a_chain_begins_with_its_own_and_may_have_comments(tmp_path):
    trusted = certificates.authority(tmp_path / "ca")
    cert, _ = trusted.issue("ps1-gw1")
    cert.write_text("subject=CN = comment\n" + cert.read_text() + trusted.ca.read_text())
    assert common_name(cert) == "ps1-gw1"


def test_a_certificate_of_version_1_has_no_version(make):
    path = make("CN = old", "utf8only", "-addext", "subjectAltName=DNS:x")
    lines = path.read_text().splitlines()
    version, fields = base64.b64decode("".join(lines[1:-1])).split(bytes.fromhex("a003020102"), 1)
    assert len(version) < 10  # the heads of certificate and tbs
    old = base64.b64encode(sequence(sequence(fields)))
    path.write_text("\n".join([lines[0], old.decode(), lines[-1]]))
    assert common_name(path) == "old"


def sequence(content):
    """Return a DER sequence."""
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


@pytest.mark.parametrize(
    ("subject", "mask", "said"),
    [("O = nameless", "utf8only", "no common name"), ("CN = wide", "MASK:0x0800", "of type 0x1e")],
)
def test_a_name_that_no_broker_takes_is_told(make, subject, mask, said):
    with pytest.raises(ValueError, match=said):
        common_name(make(subject, mask))


def test_a_damaged_certificate_is_told_wherever_it_ends(make):
    path = make("O = Corridor\nCN = my-cn")
    lines = path.read_text().splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    for n in range(len(der)):
        path.write_text("\n".join([lines[0], base64.b64encode(der[:n]).decode(), lines[-1]]))
        with pytest.raises(ValueError, match=r"^holds a damaged certificate$|^its subject has no common name"):
            common_name(path)


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_certificate_is_told(tmp_path, content):
    path = tmp_path / "x.pem"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^holds no PEM certificate$"):
        common_name(path)
