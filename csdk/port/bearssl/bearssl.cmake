# SPDX-License-Identifier: Apache-2.0
# The library `bearssl` from the sources in BEARSSL_DIR, for fm_bearssl.c.

# All but what a client's profile (fm_bearssl.c) never reaches: the build takes a third of the time.
file(GLOB BEARSSL_SOURCES RELATIVE ${BEARSSL_DIR}/src ${BEARSSL_DIR}/src/*.c ${BEARSSL_DIR}/src/*/*.c)
list(FILTER BEARSSL_SOURCES EXCLUDE REGEX "i31|i32|i62|m31|m62|m64|ct64|x86ni|pwr8|sse2|/aes_(big|small)|/des_|cbc|ccm|/gcm|/eax")
list(FILTER BEARSSL_SOURCES EXCLUDE REGEX "_full|_default|server|scert|ccert|sslio|lru|keygen|oaep|pss|_sign|shake|hkdf|skey")
list(TRANSFORM BEARSSL_SOURCES PREPEND ${BEARSSL_DIR}/src/)
add_library(bearssl STATIC ${BEARSSL_SOURCES})
target_include_directories(bearssl SYSTEM PUBLIC ${BEARSSL_DIR}/inc)
target_include_directories(bearssl PRIVATE ${BEARSSL_DIR}/src)
# fm_bearssl.c asks the application for time and randomness, and nothing else is asked.
target_compile_definitions(bearssl PRIVATE BR_USE_UNIX_TIME=0 BR_USE_URANDOM=0 BR_USE_GETENTROPY=0)
