# Which instruction set extensions -march=${COLLIMATE_ARCH} lets the compiler use, for the check in processor.cpp.
# The compiler's predefined macros tell (__AVX512F__ is avx512f); only names that __builtin_cpu_supports knows are kept.
set(known sse3 ssse3 sse4.1 sse4.2 popcnt avx avx2 fma bmi bmi2 f16c lzcnt movbe adx gfni vaes vpclmulqdq avxvnni
  avx512f avx512cd avx512bw avx512dq avx512vl avx512ifma avx512vbmi avx512vbmi2 avx512vnni avx512bitalg
  avx512vpopcntdq avx512bf16 avx512fp16)
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=${COLLIMATE_ARCH} -dM -E -x c++ /dev/null
  OUTPUT_VARIABLE macros ERROR_VARIABLE errors RESULT_VARIABLE result)
if(result)
  message(FATAL_ERROR "The compiler knows no -march=${COLLIMATE_ARCH}: give another COLLIMATE_ARCH. ${errors}")
endif()

set(needed "")
set(app_on_any_processor "")
if(macros MATCHES "#define __x86_64__ ")
  foreach(feature ${known})
    string(TOUPPER ${feature} name)
    string(REPLACE . _ name ${name})
    if(macros MATCHES "#define __${name}__ ")
      string(APPEND needed "  {\"${feature}\", __builtin_cpu_supports(\"${feature}\") != 0},\n")
    endif()
  endforeach()
  set(prepare "__builtin_cpu_init();  // by hand: needed before the constructors have run\n")
  set(app_on_any_processor -march=x86-64)
endif()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/generated/needed_features.inc
  CONTENT "${prepare}static const Feature features[] = {\n${needed}  {nullptr, true}};\n" @ONLY)

set_source_files_properties(app/processor.cpp PROPERTIES COMPILE_OPTIONS "${app_on_any_processor}"
  COMPILE_DEFINITIONS "COLLIMATE_ARCH=\"${COLLIMATE_ARCH}\""
  INCLUDE_DIRECTORIES ${CMAKE_CURRENT_BINARY_DIR}/generated)
set_source_files_properties(app/build_info.cpp PROPERTIES COMPILE_DEFINITIONS
  "COLLIMATE_VERSION=\"${PROJECT_VERSION}\";COLLIMATE_BUILD_TYPE=\"${CMAKE_BUILD_TYPE}\"")
