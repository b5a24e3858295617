"""Files that a configuration names: secret, readable, and certificates that ssl can use."""

import os
import subprocess

import pytest

from gateway.model import files
from tests import certificates


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    return certificates.authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def ours(trusted):
    return trusted.issue("gw1")


def test_a_file_is_there_and_a_secret_one_is_ours_alone(tmp_path):
    path = tmp_path / "x"
    assert files.fault(path, secret=False) == "No such file or directory"
    assert files.fault(tmp_path, secret=False) == "is not a file"
    path.write_text("x")
    path.chmod(0o644)
    assert files.fault(path, secret=False) is None
    assert files.fault(path, secret=True) == "others may read it (mode 0644), wanted 0600 or 0400"
    path.chmod(0o600)
    assert files.fault(path, secret=True) is None


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert files.fault(tmp_path / "pipe", secret=False) == "is not a file"


@pytest.mark.parametrize("content", [b"tide-mark\n", b"\ntide-mark\nmore\n"])
def test_a_secret_is_the_first_line(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert files.first_line(path) == "tide-mark"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_a_file_without_a_line_of_text_is_no_secret(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert files.first_line(path) is None


def test_certificates_that_belong_together_have_no_faults(trusted, ours):
    assert list(files.tls_faults(trusted.ca, *ours)) == []
    assert list(files.tls_faults(None, None, None)) == []


def test_what_is_no_certificate_is_told(tmp_path, ours):
    path = tmp_path / "x.pem"
    path.write_text("not a certificate\n")
    cert, key = ours
    assert list(files.tls_faults(path, cert, key)) == [("ca_file", "holds no certificate, wanted PEM")]
    assert list(files.tls_faults(None, path, key)) == [("cert_file", "holds no certificate, wanted PEM")]
    ((place, text),) = files.tls_faults(None, cert, path)
    assert (place, text) == ("key_file", "holds no private key, wanted PEM without a passphrase")


def test_a_key_of_another_certificate_is_told(trusted, ours):
    ((place, text),) = files.tls_faults(trusted.ca, ours[0], trusted.folder / "ca.key")
    assert (place, text) == ("key_file", "belongs to another certificate, wanted the key of cert_file")


def test_a_passphrase_is_never_asked_for(tmp_path, ours):
    cert, key = ours
    locked = tmp_path / "locked.key"
    asked = ["openssl", "rsa", "-aes256", "-passout", "pass:tide", "-in", str(key), "-out", str(locked)]
    subprocess.run(asked, check=True, capture_output=True)
    ((place, text),) = files.tls_faults(None, cert, locked)
    assert (place, text) == ("key_file", "holds no private key, wanted PEM without a passphrase")
