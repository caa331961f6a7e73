# In a wheel, OpenVINO's libraries stand in the folder beside; a wheel has no links, so that the
# library is one file, without a version in its name.
set_target_properties(stpm PROPERTIES INSTALL_RPATH "$ORIGIN/../../openvino/libs"
  INSTALL_RPATH_USE_LINK_PATH OFF)
set_property(TARGET stpm PROPERTY VERSION)
set_property(TARGET stpm PROPERTY SOVERSION)
install(FILES wheel/__main__.py DESTINATION .)

# The licences of what is compiled in, and of the libraries that auditwheel copies into the wheel,
# where Debian and Ubuntu keep them. The C library is not copied.
get_target_property(crypto_library OpenSSL::Crypto IMPORTED_LOCATION)
execute_process(COMMAND ldd ${LIBZIP_LIBRARY} OUTPUT_VARIABLE needed)
string(REGEX MATCHALL "/[^ \n]+" libraries "${needed}")
set(packages nlohmann-json3-dev)
foreach(library ${LIBZIP_LIBRARY} ${crypto_library} ${libraries})
  file(REAL_PATH ${library} library)
  get_filename_component(name ${library} NAME)
  # By its name alone: dpkg knows /lib, the path is below /usr/lib.
  execute_process(COMMAND dpkg -S "*/${name}" OUTPUT_VARIABLE owner ERROR_QUIET)
  string(REGEX MATCH "^[^:]+" package "${owner}")
  list(APPEND packages ${package})
endforeach()
list(REMOVE_DUPLICATES packages)
list(REMOVE_ITEM packages libc6 zlib1g)
foreach(package ${packages})
  if(EXISTS /usr/share/doc/${package}/copyright)
    install(FILES /usr/share/doc/${package}/copyright
      DESTINATION ${SKBUILD_METADATA_DIR}/licenses/third-party RENAME ${package}.txt)
  endif()
endforeach()
