# cmake --install: library, headers, find_package(Espalier), pkg-config, the command.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS espalier EXPORT EspalierTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY runtime/include/espalier DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT EspalierTargets NAMESPACE Espalier:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)
configure_package_config_file(cmake/EspalierConfig.cmake.in ${PROJECT_BINARY_DIR}/EspalierConfig.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/EspalierConfig.cmake ${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)

# What a program needs beside a static library; a shared one names its own.
if(NOT BUILD_SHARED_LIBS)
    if(ESPALIER_ONEDNN)
        string(APPEND espalier_pc_libraries " -ldnnl")
    endif()
    if(ESPALIER_THREADS)
        string(APPEND espalier_pc_libraries " ${OpenMP_CXX_FLAGS}")
    endif()
    string(APPEND espalier_pc_libraries " -lstdc++ -lm")
endif()
# Found from where the file lies: an installed tree may be moved.
file(RELATIVE_PATH espalier_pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/espalier.pc.in ${PROJECT_BINARY_DIR}/espalier.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/espalier.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(ESPALIER_APPS)
    install(TARGETS espalier_command DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
