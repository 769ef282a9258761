/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for Zephyr's header of this name. */
#ifndef STAND_IN_LOG_H
#define STAND_IN_LOG_H

#define LOG_LEVEL_INF 3
#define LOG_MODULE_REGISTER(name, level) enum { stand_in_log_of_##name = (level) }
#define LOG_INF(...) stand_in_log("inf", __VA_ARGS__)
#define LOG_WRN(...) stand_in_log("wrn", __VA_ARGS__)

void stand_in_log(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
