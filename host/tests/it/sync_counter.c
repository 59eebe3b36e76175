/* Preloaded into a host: appends a byte to the file SYNC_LOG for each sync to disk, after it was done. With SYNC_DELAY
   each takes so many microseconds longer, as on a slow disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int count(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int done = real(fd);
    const char *delay = getenv("SYNC_DELAY");
    if (delay) usleep((useconds_t)atoi(delay));
    const char *path = getenv("SYNC_LOG");
    int log = path && done == 0 ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (log >= 0) {
        if (write(log, "s", 1) != 1) abort();
        close(log);
    }
    return done;
}

int fsync(int fd) { return count("fsync", fd); }
int fdatasync(int fd) { return count("fdatasync", fd); }
