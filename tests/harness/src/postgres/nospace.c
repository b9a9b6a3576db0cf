/* Loaded before the C library of a server under test: while the file $NOSPACE_FLAG is there, writes to tables' files (below a
 * folder "base") fail as on a full disk. WAL and everything else can be written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *flag = getenv("NOSPACE_FLAG");
    if (flag == NULL || access(flag, F_OK) != 0)
        return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return strstr(path, "/base/") != NULL;
}

#define REFUSE(fd, value)   \
    if (is_full(fd)) {      \
        errno = ENOSPC;     \
        return value;       \
    }

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    static ssize_t (*next)(int, const void *, size_t, off_t);
    REFUSE(fd, -1)
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "pwrite");
    return next(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return pwrite(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    static ssize_t (*next)(int, const struct iovec *, int, off_t);
    REFUSE(fd, -1)
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "pwritev");
    return next(fd, pieces, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return pwritev(fd, pieces, count, offset);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    static int (*next)(int, off_t, off_t);
    if (is_full(fd))
        return ENOSPC;
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "posix_fallocate");
    return next(fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    return posix_fallocate(fd, offset, length);
}
