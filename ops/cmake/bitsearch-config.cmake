# find_package(bitsearch PATHS "$(bitsearch ops --cmake-dir)"), then bitsearch::ops is
# the library of operators: $<TARGET_FILE:bitsearch::ops> for RegisterCustomOpsLibrary,
# or linked, with <bitsearch/ops.h>. onnxruntime is the program's own.
get_filename_component(_bitsearch_ops "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
if(NOT DEFINED BITSEARCH_OPS_LIBRARY)
  set(BITSEARCH_OPS_LIBRARY "${_bitsearch_ops}/libbitsearch_ops.so")
endif()
if(NOT EXISTS "${BITSEARCH_OPS_LIBRARY}")
  set(bitsearch_FOUND FALSE)
  set(bitsearch_NOT_FOUND_MESSAGE
      "found no ${BITSEARCH_OPS_LIBRARY}, expected the library that pip installs; set BITSEARCH_OPS_LIBRARY")
  return()
endif()
if(NOT TARGET bitsearch::ops)
  add_library(bitsearch::ops SHARED IMPORTED)
  set_target_properties(bitsearch::ops PROPERTIES
    IMPORTED_LOCATION "${BITSEARCH_OPS_LIBRARY}"
    IMPORTED_NO_SONAME TRUE
    INTERFACE_INCLUDE_DIRECTORIES "${_bitsearch_ops}/include")
endif()
