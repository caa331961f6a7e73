# The engines of this build: those whose SDK is found. Each appends its source, its libraries and
# a definition that src/engines/engines.cpp lists it by.
set(stpm_engine_sources)
set(stpm_engine_libraries)
set(stpm_engine_definitions)

# OpenVINO: its Python wheel is a whole SDK.
if(NOT OpenVINO_DIR)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
        "import importlib.util as u; s = u.find_spec('openvino'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE openvino_wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(openvino_wheel)
      list(APPEND CMAKE_PREFIX_PATH "${openvino_wheel}/cmake")
    endif()
  endif()
endif()
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(OpenVINO_FOUND)
  message(STATUS "stpm engine OpenVINO: ${OpenVINO_VERSION}")
  list(APPEND stpm_engine_sources src/engines/openvino.cpp)
  list(APPEND stpm_engine_libraries openvino::runtime)
  list(APPEND stpm_engine_definitions STPM_OPENVINO)
else()
  message(STATUS "stpm engine OpenVINO: left out; pip install openvino, or set OpenVINO_DIR")
endif()

# ONNX Runtime: the archive of its release page.
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h
  PATH_SUFFIXES onnxruntime onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY onnxruntime)
mark_as_advanced(ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIBRARY)
if(ONNXRUNTIME_INCLUDE_DIR AND ONNXRUNTIME_LIBRARY)
  message(STATUS "stpm engine ONNX Runtime: ${ONNXRUNTIME_LIBRARY}")
  add_library(stpm_onnxruntime INTERFACE)
  target_include_directories(stpm_onnxruntime SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE_DIR})
  target_link_libraries(stpm_onnxruntime INTERFACE ${ONNXRUNTIME_LIBRARY})
  list(APPEND stpm_engine_sources src/engines/onnxruntime.cpp)
  list(APPEND stpm_engine_libraries $<BUILD_INTERFACE:stpm_onnxruntime>)
  list(APPEND stpm_engine_definitions STPM_ONNXRUNTIME)
else()
  message(STATUS "stpm engine ONNX Runtime: left out; set ONNXRUNTIME_INCLUDE_DIR and "
    "ONNXRUNTIME_LIBRARY")
endif()

# TensorRT 10, 11 or RTX.
find_path(TENSORRT_INCLUDE_DIR NvInfer.h)
if(TENSORRT_INCLUDE_DIR)
  include(cmake/tensorrt.cmake)
else()
  message(STATUS "stpm engine TensorRT: left out; set TENSORRT_INCLUDE_DIR to NvInfer.h's folder")
endif()

if(NOT stpm_engine_sources)
  message(FATAL_ERROR "libstpm needs an engine: pip install openvino, or set OpenVINO_DIR")
endif()
