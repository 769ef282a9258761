# SPDX-License-Identifier: Apache-2.0
# What the firmware for bare metal on a serial line have in common. A firmware's CMakeLists.txt sets FEDMOTE_DIR, includes
# this after project(), and calls fedmote_serial_firmware() with its board's sources.

cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME FEDMOTE_EXAMPLE)
set(FEDMOTE_DEVICE_ID ${FEDMOTE_EXAMPLE} CACHE STRING "Name of this device in its federation")
set(FEDMOTE_PARTITION 0 CACHE STRING "Which share of the digits this device learns from")
set(FEDMOTE_PARTITIONS 10 CACHE STRING "Number of shares that the digits are dealt in")
option(FEDMOTE_SEMIHOSTING "Log to the debugger. Without one attached a log line is a fault: OFF is silent" ON)
find_program(FEDMOTE_PYTHON python HINTS ${FEDMOTE_DIR}/.venv/bin NO_DEFAULT_PATH REQUIRED
             DOC "A Python in which fedmote is installed: it deals out the digits")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE MinSizeRel)
endif()

# The device library, as any firmware takes it.
set(FEDMOTE_WARNINGS -Wall -Wextra -Wconversion -Wshadow -Wundef -Wstrict-prototypes)
add_compile_options(-ffunction-sections -fdata-sections)
add_subdirectory(${FEDMOTE_DIR} fedmote)

# fedmote_serial_firmware(INPUTS n HIDDEN n LINKER_SCRIPT file SIZE program SOURCES file... LIBRARIES option...)
# SOURCES are the board's own and, of this folder, the processor's and what plays its flash.
function(fedmote_serial_firmware)
  cmake_parse_arguments(ARG "" "INPUTS;HIDDEN;LINKER_SCRIPT;SIZE" "SOURCES;LIBRARIES" ${ARGN})
  set(BARE_METAL ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  set(APP ${BARE_METAL}/../app)
  set(DIGITS ${BARE_METAL}/../digits)
  set(PARTITION ${CMAKE_CURRENT_BINARY_DIR}/partition.h)
  add_custom_command(
    OUTPUT ${PARTITION}
    COMMAND ${FEDMOTE_PYTHON} ${DIGITS}/make_partition.py ${FEDMOTE_PARTITION} ${FEDMOTE_PARTITIONS} ${ARG_INPUTS} ${PARTITION}
    DEPENDS ${DIGITS}/make_partition.py ${FEDMOTE_DIR}/server/fedmote/datasets/digits.py ${FEDMOTE_DIR}/server/fedmote/datasets/digits.npz
    COMMENT "Dealing out share ${FEDMOTE_PARTITION} of ${FEDMOTE_PARTITIONS}"
    VERBATIM)

  set(IMAGE ${FEDMOTE_EXAMPLE})
  add_executable(
    ${IMAGE} ${APP}/app.c ${APP}/line.c ${APP}/serial/app_link.c ${DIGITS}/digits.c ${PARTITION}
             ${BARE_METAL}/serial/main.c ${BARE_METAL}/serial/uart.c ${ARG_SOURCES})
  set_target_properties(${IMAGE} PROPERTIES SUFFIX .elf C_STANDARD 99 LINK_DEPENDS ${ARG_LINKER_SCRIPT})
  target_include_directories(${IMAGE} PRIVATE ${APP} ${APP}/serial ${DIGITS} ${BARE_METAL} ${BARE_METAL}/serial ${BARE_METAL}/arch
                                              board ${CMAKE_CURRENT_BINARY_DIR})
  target_compile_definitions(
    ${IMAGE} PRIVATE FEDMOTE_DEVICE_ID="${FEDMOTE_DEVICE_ID}" FEDMOTE_SEMIHOSTING=$<BOOL:${FEDMOTE_SEMIHOSTING}>
                     MODEL_INPUTS=${ARG_INPUTS}u MODEL_HIDDEN=${ARG_HIDDEN}u)
  target_compile_options(${IMAGE} PRIVATE ${FEDMOTE_WARNINGS})
  target_link_libraries(${IMAGE} PRIVATE fedmote::fedmote ${ARG_LIBRARIES})
  target_link_options(${IMAGE} PRIVATE -nostartfiles -T ${ARG_LINKER_SCRIPT} LINKER:--gc-sections
                      LINKER:-Map=${CMAKE_CURRENT_BINARY_DIR}/${IMAGE}.map)
  add_custom_command(TARGET ${IMAGE} POST_BUILD COMMAND ${ARG_SIZE} $<TARGET_FILE:${IMAGE}> VERBATIM)
endfunction()
