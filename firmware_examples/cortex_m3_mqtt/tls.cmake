# SPDX-License-Identifier: Apache-2.0
# What FEDMOTE_TLS adds to cortex_m3_mqtt: BearSSL, and the certificate of who signed the broker's.
set(BEARSSL_DIR ${FEDMOTE_SOURCES_DIR}/bearssl)
if(NOT EXISTS ${BEARSSL_DIR})
  message(FATAL_ERROR "no BearSSL in ${BEARSSL_DIR}: run firmware_examples/fetch_sources.sh")
endif()
if(NOT EXISTS ${FEDMOTE_CA_FILE})
  message(FATAL_ERROR "no ${FEDMOTE_CA_FILE}: run make_certificates.sh, or name a file in FEDMOTE_CA_FILE")
endif()

# All but what a client's profile (fm_bearssl.c) never reaches: the build takes a third of the time.
file(GLOB BEARSSL_SOURCES ${BEARSSL_DIR}/src/*.c ${BEARSSL_DIR}/src/*/*.c)
list(FILTER BEARSSL_SOURCES EXCLUDE REGEX "i31|i32|i62|m31|m62|m64|ct64|x86ni|pwr8|sse2|/aes_(big|small)|/des_|cbc|ccm|/gcm|/eax")
list(FILTER BEARSSL_SOURCES EXCLUDE REGEX "_full|_default|server|scert|ccert|sslio|lru|keygen|oaep|pss|_sign|shake|hkdf|skey")
add_library(bearssl STATIC ${BEARSSL_SOURCES})
target_include_directories(bearssl SYSTEM PUBLIC ${BEARSSL_DIR}/inc)
target_include_directories(bearssl PRIVATE ${BEARSSL_DIR}/src)
# The board is asked for time and randomness, and nothing else is.
target_compile_definitions(bearssl PRIVATE BR_USE_UNIX_TIME=0 BR_USE_URANDOM=0 BR_USE_GETENTROPY=0)

set(ANCHORS ${CMAKE_CURRENT_BINARY_DIR}/anchors.h)
add_custom_command(
  OUTPUT ${ANCHORS}
  COMMAND ${FEDMOTE_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/make_anchors.py ${FEDMOTE_CA_FILE} ${ANCHORS}
  DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/make_anchors.py ${FEDMOTE_CA_FILE}
  VERBATIM)
target_sources(cortex_m3_mqtt PRIVATE app/broker_tls.c ${FEDMOTE_DIR}/csdk/port/bearssl/fm_bearssl.c ${ANCHORS})
target_include_directories(cortex_m3_mqtt PRIVATE ${FEDMOTE_DIR}/csdk/port/bearssl)
target_compile_definitions(cortex_m3_mqtt PRIVATE FEDMOTE_BROKER_NAME="${FEDMOTE_BROKER_NAME}")
target_link_libraries(cortex_m3_mqtt PRIVATE bearssl)
