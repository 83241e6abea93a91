/* The wall clock of a process, ahead by as many seconds as the file CHAOS_CLOCK says: a double, mapped, so that
 * it can be changed at any moment. Loaded by LD_PRELOAD. The monotonic clock goes on, as when somebody sets a
 * machine's clock; who waits for a moment of the wall clock waits as long as was meant when the wait began. */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile double *ahead;

__attribute__((constructor)) static void open_clock(void) {
    int file = open(getenv("CHAOS_CLOCK"), O_RDONLY | O_CLOEXEC);
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

static struct timespec moved(struct timespec at, double seconds) {
    at.tv_sec += (time_t)seconds;
    return at;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*get)(clockid_t, struct timespec *);
    if (!get) get = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = get(which, now);
    if (!failed && ahead && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) *now = moved(*now, *ahead);
    return failed;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec at;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now) *now = at.tv_sec;
    return at.tv_sec;
}

/* The kernel knows nothing of our clock. A moment of the monotonic one is below a billion seconds. */
static struct timespec of_kernel(const struct timespec *until) {
    return until->tv_sec > 1000000000 ? moved(*until, -*ahead) : *until;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec at = of_kernel(until);
    if (!wait) wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return wait(c, m, &at);
}

int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec at = of_kernel(until);
    if (!wait) wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    return wait(c, m, &at);
}

int sem_timedwait(sem_t *s, const struct timespec *until) {
    static int (*wait)(sem_t *, const struct timespec *);
    struct timespec at = of_kernel(until);
    if (!wait) wait = dlsym(RTLD_NEXT, "sem_timedwait");
    return wait(s, &at);
}
