# cmake --install: library, headers, find_package(Espalier), the command.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(espalier_targets espalier espalier_utf8proc)
install(TARGETS ${espalier_targets} EXPORT EspalierTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY runtime/include/espalier DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT EspalierTargets NAMESPACE Espalier:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)
configure_package_config_file(cmake/EspalierConfig.cmake.in ${PROJECT_BINARY_DIR}/EspalierConfig.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/EspalierConfig.cmake ${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)
if(ESPALIER_APPS)
    install(TARGETS espalier_command DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
