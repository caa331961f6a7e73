include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/stpm)
install(TARGETS stpm EXPORT stpm
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/stpm.h include/stpm.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT stpm NAMESPACE stpm:: FILE stpmConfig.cmake DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/stpmConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/stpmConfigVersion.cmake DESTINATION ${package_dir})

file(RELATIVE_PATH to_prefix
  /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/stpm.pc.in stpm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/stpm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
