# Run by each build: writes HEADER, which says the commit that SOURCE is at, "-dirty" behind it where tracked files were
# changed, "unknown" where SOURCE is no git checkout of its own. The file is touched only when that has changed, so that
# nothing is compiled or linked anew otherwise.
#   cmake -DSOURCE=… -DHEADER=… -P EspalierCommit.cmake
set(commit unknown)
find_program(GIT git)
if(GIT)
    execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --show-toplevel
        OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    file(REAL_PATH ${SOURCE} source)
    if(top STREQUAL source)
        execute_process(COMMAND ${GIT} -C ${SOURCE} --no-optional-locks describe --always --dirty --abbrev=40 --exclude=*
            OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
        if(failed EQUAL 0)
            set(commit ${found})
        endif()
    endif()
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "// Made by cmake/EspalierCommit.cmake.\n#define ESPALIER_COMMIT \"@commit@\"\n" @ONLY)
