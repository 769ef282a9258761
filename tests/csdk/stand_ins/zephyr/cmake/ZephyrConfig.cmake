# SPDX-License-Identifier: Apache-2.0
# Stands in for Zephyr's package: the functions that modules call, the target `app`, and the modules themselves. The
# configuration comes as CONFIG_ variables and in AUTOCONF, a header.
project(Zephyr-Kernel LANGUAGES C)

function(zephyr_library_named name)
  add_library(${name} STATIC)
  target_link_libraries(${name} PRIVATE zephyr_interface)
  target_link_libraries(app PRIVATE ${name})
  set(ZEPHYR_CURRENT_LIBRARY ${name} PARENT_SCOPE)
endfunction()
function(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endfunction()
function(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${ARGN})
endfunction()
function(zephyr_compile_definitions)
  target_compile_definitions(zephyr_interface INTERFACE ${ARGN})
endfunction()

set(ZEPHYR_STAND_IN ${CMAKE_CURRENT_LIST_DIR}/..)
add_library(zephyr_interface INTERFACE)
target_include_directories(zephyr_interface INTERFACE ${ZEPHYR_STAND_IN})
target_compile_options(zephyr_interface INTERFACE -std=gnu17 -imacros ${AUTOCONF} -Wall -Wextra -Wconversion -Wshadow
                                                  -Werror)
add_executable(app ${ZEPHYR_STAND_IN}/zephyr.c ${ZEPHYR_STAND_IN}/../nor_file.c)
target_link_libraries(app PRIVATE zephyr_interface)
foreach(module ${ZEPHYR_EXTRA_MODULES})
  get_filename_component(name ${module} NAME)
  add_subdirectory(${module}/zephyr ${CMAKE_BINARY_DIR}/modules/${name})
endforeach()
