/* Preloaded into a host: what a hostile name server would answer, and a place out in the world where nobody is.
   `inside.example` is this machine, `metadata.example` a cloud's service for its own machines, `mixed.example` is out in the
   world and this machine, and `rebinds.example` is out in the world for whoever asks first, and this machine from then on.
   Each question is a line of the file NAMES_LOG. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUTSIDE "11.0.0.1"

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static atomic_int asked;
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("NAMES_LOG");
    if (!name || !path || !strstr(name, ".example")) return real(name, service, hints, found);
    int log = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(log, name, strlen(name)) < 0 || write(log, "\n", 1) != 1) abort();
    close(log);
    const char *first = "127.0.0.1";
    if (strcmp(name, "metadata.example") == 0) first = "169.254.169.254";
    if (strcmp(name, "mixed.example") == 0) first = OUTSIDE;
    if (strcmp(name, "rebinds.example") == 0 && atomic_fetch_add(&asked, 1) == 0) first = OUTSIDE;
    int error = real(first, service, hints, found);
    if (error || strcmp(name, "mixed.example") != 0) return error;
    return real("127.0.0.1", service, hints, &(*found)->ai_next);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET && ((const struct sockaddr_in *)address)->sin_addr.s_addr == inet_addr(OUTSIDE)) {
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, address, length);
}
