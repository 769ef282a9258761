/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ESP-IDF's header of this name. */
#ifndef STAND_IN_ESP_LOG_H
#define STAND_IN_ESP_LOG_H

#define ESP_LOGI(tag, ...) stand_in_log('I', tag, __VA_ARGS__)
#define ESP_LOGW(tag, ...) stand_in_log('W', tag, __VA_ARGS__)

void stand_in_log(char level, const char *tag, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
