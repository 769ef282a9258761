/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_train.h"

/* 2^k * e^r with r in [-ln2/2, ln2/2] and a Taylor polynomial of degree 7: its remainder is below 1e-8 there. */
float fm_train_exp(float x) {
  float result;
  if (x < -87.3f) {
    result = 0.0f;
  } else if (!(x <= 88.7f)) { /* also NaN */
    const uint32_t infinity = 0x7F800000u;
    (void)memcpy(&result, &infinity, sizeof result);
  } else {
    const float scaled = x * 1.44269504f;
    const int32_t k = (int32_t)(scaled + ((scaled < 0.0f) ? -0.5f : 0.5f));
    /* ln 2 in two parts, so that k * ln 2 is subtracted without being rounded first */
    const float r = (x - ((float)k * 0.693359375f)) + ((float)k * 2.12194440e-4f);
    float p = 1.98412698e-4f;
    uint32_t bits;
    float power;
    p = (p * r) + 1.38888889e-3f;
    p = (p * r) + 8.33333333e-3f;
    p = (p * r) + 4.16666667e-2f;
    p = (p * r) + 1.66666667e-1f;
    p = (p * r) + 0.5f;
    p = (p * r * r) + r + 1.0f;
    /* two factors: 2^128 is not a float, although its product with p may be one */
    bits = (uint32_t)(127 + (k / 2)) << 23; /* MISRA D9 */
    (void)memcpy(&power, &bits, sizeof power);
    result = p * power;
    bits = (uint32_t)(127 + (k - (k / 2))) << 23; /* MISRA D9 */
    (void)memcpy(&power, &bits, sizeof power);
    result *= power;
  }
  return result;
}

/* x = 2^k * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)) as a series. */
float fm_train_log(float x) {
  uint32_t bits;
  int32_t k;
  float m;
  float s;
  float t;
  float series;
  (void)memcpy(&bits, &x, sizeof bits);
  k = (int32_t)(bits >> 23) - 127;
  bits = (bits & 0x007FFFFFu) | 0x3F800000u;
  (void)memcpy(&m, &bits, sizeof m);
  if (m > 1.41421356f) {
    m *= 0.5f;
    k++;
  }
  s = (m - 1.0f) / (m + 1.0f);
  t = s * s;
  series = (t * ((t * ((t * ((t * 0.111111111f) + 0.142857143f)) + 0.2f)) + 0.333333333f));
  return (((float)k * 0.693359375f) + ((2.0f * s) + (2.0f * s * series))) - ((float)k * 2.12194440e-4f);
}
