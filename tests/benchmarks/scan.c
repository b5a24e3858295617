/* The pass of gateway/detect/rules.py `look` over frames of n tags, as a C programmer would write it to be vectorised:
 * restrict everywhere, no branch, every column loaded once. Hints are doubles: with bytes gcc packs 64 tags at a time,
 * spills, and needs twice the time. The peer of `corridor bench detect`; shares no code. */
#include <math.h>
#include <stdint.h>

#define R restrict
#define BAD 0x80000000u

static inline double least(double a, double b) { return a < b ? a : b; }
static inline double most(double a, double b) { return a > b ? a : b; }

/* Columns, n doubles each: settings first, then state. */
enum { QUIET_LOW, QUIET_HIGH, RATE, STILL_FROM, Z_ALARM, RESOLUTION,
       MEAN, VARIANCE, SEEN, LAST, IDLE, STILL, REST, SHARE, POLLS, MOVES, LONGEST, ROUGH, ROUGHEST, COLUMNS };

static __attribute__((noinline)) void look(
    long n, double dt, const double *R value, const uint32_t *R quality,
    const double *R quiet_low, const double *R quiet_high, const double *R rate, const double *R still_from,
    const double *R z_alarm, const double *R resolution,
    double *R mean, double *R variance, double *R seen, double *R last, double *R idle, double *R still,
    double *R rest, double *R share, double *R polls, double *R moves, double *R longest, double *R rough,
    double *R roughest, double *R hint)
{
    double left = most(1.0 - log(2.0) / (28 * 86400.0) * dt, 0.0);
    for (long i = 0; i < n; i++) {
        double v = value[i], good = (int32_t)quality[i] < 0 ? 0.0 : 1.0;
        double m = mean[i], r = variance[i], s = seen[i], k = still[i], p = polls[i], top = longest[i];
        double w = share[i], x = last[i], seconds = rest[i], moved = moves[i];
        double gap = idle[i] + dt;
        idle[i] = good > 0.0 ? 0.0 : gap;
        double beyond = v < quiet_low[i] ? 1.0 : 0.0;
        beyond = v > quiet_high[i] ? 1.0 : beyond;
        double d = fabs(v - x);
        double fast = d > rate[i] * gap ? 2.0 : 0.0;
        fast = gap > 0.0 ? fast : 0.0;
        last[i] = good > 0.0 ? v : x;

        double length = k + 1.0;
        double moves_now = d > 0.0 ? good : 0.0;
        double p2 = least(p + length, most(200.0, length));
        double w2 = w + (1.0 - w * length) / p2;
        share[i] = moves_now > 0.0 ? w2 : w;
        polls[i] = moves_now > 0.0 ? p2 : p;
        moves[i] = moves_now > 0.0 ? least(moved + 1.0, 1e6) : moved;
        longest[i] = moves_now > 0.0 ? most(0.999999 * top, k) : top;
        double k2 = d == 0.0 ? length : 0.0;
        k2 = good > 0.0 ? k2 : k;
        still[i] = k2;
        double seconds2 = d == 0.0 ? seconds + gap : 0.0;
        seconds2 = good > 0.0 ? seconds2 : seconds;
        rest[i] = seconds2;
        double evidence = k2 * w;

        double e = v - m;
        double sd = most(sqrt(r), most(resolution[i], 1e-3 * fabs(m)));
        double far = z_alarm[i] * sd;
        far = s >= 20.0 ? far : INFINITY;
        far = sd > 0.0 ? far : INFINITY;
        double size = fabs(e);
        double away = size > far ? 8.0 : 0.0;
        double frozen = evidence >= 18.0 ? 4.0 : 0.0;
        frozen = k2 >= most(still_from[i], 2.0 * top) ? frozen : 0.0;
        frozen = moved >= 10.0 ? frozen : 0.0;
        frozen = seconds2 >= 20.0 ? frozen : 0.0;
        frozen = size <= 4.0 * sd ? frozen : 0.0;
        double teaches = evidence < 3.0 ? good : 0.0;
        teaches = size < 1e30 ? teaches : 0.0;
        double usual = far < INFINITY ? teaches : 0.0;
        usual = d <= 2.0 * far ? usual : 0.0;
        double step = rough[i] + 0.01 * (d - rough[i]), roughest_yet = left * roughest[i];
        rough[i] = usual > 0.0 ? step : rough[i];
        roughest[i] = usual > 0.0 ? most(roughest_yet, step) : roughest_yet;
        e = least(most(e, -far), far);
        double s2 = least(s + 1.0, 1e6);
        double a = most(0.01, 1.0 / s2);
        mean[i] = teaches > 0.0 ? m + a * e : m;
        variance[i] = teaches > 0.0 ? (1.0 - a) * (r + a * e * e) : r;
        seen[i] = teaches > 0.0 ? s2 : s;
        hint[i] = good * (beyond + fast + away + frozen);
    }
}

void scan(long frames, long n, double dt, const double *value, const uint32_t *quality, double *columns, double *hint)
{
    double *c[COLUMNS];
    for (int j = 0; j < COLUMNS; j++)
        c[j] = columns + j * n;
    for (long k = 0; k < frames; k++)
        look(n, dt, value + k * n, quality + k * n,
             c[QUIET_LOW], c[QUIET_HIGH], c[RATE], c[STILL_FROM], c[Z_ALARM], c[RESOLUTION],
             c[MEAN], c[VARIANCE], c[SEEN], c[LAST], c[IDLE], c[STILL], c[REST], c[SHARE], c[POLLS], c[MOVES],
             c[LONGEST], c[ROUGH], c[ROUGHEST], hint);
}
