# The libraries tell the product: libnvinfer is TensorRT, libtensorrt_rtx TensorRT-RTX.
find_library(TENSORRT_LIBRARY NAMES nvinfer tensorrt_rtx)
find_library(TENSORRT_PARSER_LIBRARY NAMES nvonnxparser tensorrt_onnxparser_rtx)
find_package(CUDAToolkit QUIET)
find_path(CUDA_RUNTIME_INCLUDE_DIR cuda_runtime_api.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CUDA_RUNTIME_LIBRARY cudart HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(TENSORRT_INCLUDE_DIR TENSORRT_LIBRARY TENSORRT_PARSER_LIBRARY
  CUDA_RUNTIME_INCLUDE_DIR CUDA_RUNTIME_LIBRARY)

if(TENSORRT_LIBRARY AND TENSORRT_PARSER_LIBRARY AND CUDA_RUNTIME_INCLUDE_DIR AND
   CUDA_RUNTIME_LIBRARY)
  if(TENSORRT_LIBRARY MATCHES rtx)
    set(tensorrt_name "tensorrt-rtx")
  else()
    set(tensorrt_name "tensorrt")
  endif()
  message(STATUS "stpm engine TensorRT: ${tensorrt_name}, ${TENSORRT_LIBRARY}")
  add_library(stpm_tensorrt INTERFACE)
  target_include_directories(stpm_tensorrt SYSTEM INTERFACE
    ${TENSORRT_INCLUDE_DIR} ${CUDA_RUNTIME_INCLUDE_DIR})
  target_link_libraries(stpm_tensorrt INTERFACE
    ${TENSORRT_LIBRARY} ${TENSORRT_PARSER_LIBRARY} ${CUDA_RUNTIME_LIBRARY})
  list(APPEND stpm_engine_sources src/engines/tensorrt.cpp src/engines/tensorrt_plan.cpp)
  list(APPEND stpm_engine_libraries $<BUILD_INTERFACE:stpm_tensorrt>)
  list(APPEND stpm_engine_definitions STPM_TENSORRT="${tensorrt_name}")
else()
  message(STATUS "stpm engine TensorRT: left out; set TENSORRT_LIBRARY, TENSORRT_PARSER_LIBRARY, "
    "CUDA_RUNTIME_INCLUDE_DIR and CUDA_RUNTIME_LIBRARY")
endif()
