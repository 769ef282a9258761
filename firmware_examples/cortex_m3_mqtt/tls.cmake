# SPDX-License-Identifier: Apache-2.0
# What FEDMOTE_TLS adds to cortex_m3_mqtt: BearSSL, and the certificate of who signed the broker's.
set(BEARSSL_DIR ${FEDMOTE_SOURCES_DIR}/bearssl)
if(NOT EXISTS ${BEARSSL_DIR})
  message(FATAL_ERROR "no BearSSL in ${BEARSSL_DIR}: run firmware_examples/fetch_sources.sh")
endif()
if(NOT EXISTS ${FEDMOTE_CA_FILE})
  message(FATAL_ERROR "no ${FEDMOTE_CA_FILE}: run make_certificates.sh, or name a file in FEDMOTE_CA_FILE")
endif()

include(${FEDMOTE_DIR}/csdk/port/bearssl/bearssl.cmake)

set(ANCHORS ${CMAKE_CURRENT_BINARY_DIR}/anchors.h)
add_custom_command(
  OUTPUT ${ANCHORS}
  COMMAND ${FEDMOTE_PYTHON} ${FEDMOTE_DIR}/csdk/port/bearssl/make_anchors.py ${FEDMOTE_CA_FILE} ${ANCHORS}
  DEPENDS ${FEDMOTE_DIR}/csdk/port/bearssl/make_anchors.py ${FEDMOTE_CA_FILE}
  VERBATIM)
target_sources(cortex_m3_mqtt PRIVATE app/broker_tls.c ${FEDMOTE_DIR}/csdk/port/bearssl/fm_bearssl.c ${ANCHORS})
target_include_directories(cortex_m3_mqtt PRIVATE ${FEDMOTE_DIR}/csdk/port/bearssl)
target_compile_definitions(cortex_m3_mqtt PRIVATE FEDMOTE_BROKER_NAME="${FEDMOTE_BROKER_NAME}")
target_link_libraries(cortex_m3_mqtt PRIVATE bearssl)
