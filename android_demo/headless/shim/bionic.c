/* What Android's C library (bionic) has and glibc lacks or does differently, as far as
 * libtensorflowlite_jni.so asks for it. make_shim.py makes a libc.so whose symbols jump
 * through a table; bionic_fill() fills that table: a function here named bionic_X wins,
 * else glibc's or libm's own X. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The table ------------------------------------------------------------------- */

#define SF_BYTES 456 /* bionic's __sF: three FILE structs of 152 bytes */

static char *bionic_streams;

static void missing(void) {
  fputs("bionic shim: a function that glibc does not have was called\n", stderr);
  _exit(99);
}

void bionic_fill(const char *const *names, void **table, void *streams) {
  bionic_streams = streams;
  Dl_info here;
  dladdr((void *)bionic_fill, &here);
  void *libraries[] = {dlopen("libc.so.6", RTLD_NOW), dlopen("libm.so.6", RTLD_NOW)};
  void *self = dlopen(here.dli_fname, RTLD_NOW);
  for (int i = 0; names[i]; i++) {
    char own[128];
    snprintf(own, sizeof own, "bionic_%s", names[i]);
    void *function = dlsym(self, own);
    for (int k = 0; !function && k < 2; k++) function = dlsym(libraries[k], names[i]);
    if (!function) {
      fprintf(stderr, "bionic shim: glibc has no %s\n", names[i]);
      function = (void *)missing;
    }
    table[i] = function;
  }
}

/* ---- Streams: bionic's stdin, stdout, stderr are &__sF[0], [1], [2] --------------- */

/* What TFLite says on stderr it also gives to Android's log (below), which sorts it by its
 * level; only with EPNET_TFLITE_LOG set is it shown here as well. */
static int silent(void *file) {
  return (char *)file == bionic_streams + 2 * (SF_BYTES / 3) && !getenv("EPNET_TFLITE_LOG");
}

static FILE *stream(void *file) {
  char *p = file;
  if (p < bionic_streams || p >= bionic_streams + SF_BYTES) return file;
  switch ((p - bionic_streams) / (SF_BYTES / 3)) {
    case 0: return stdin;
    case 1: return stdout;
    default: return stderr;
  }
}

int bionic_vfprintf(FILE *f, const char *format, va_list arguments) {
  return silent(f) ? 0 : vfprintf(stream(f), format, arguments);
}

int bionic_fprintf(FILE *f, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = bionic_vfprintf(f, format, arguments);
  va_end(arguments);
  return written;
}

size_t bionic_fwrite(const void *data, size_t size, size_t count, FILE *f) {
  return silent(f) ? count : fwrite(data, size, count, stream(f));
}

int bionic_fflush(FILE *f) { return fflush(f ? stream(f) : NULL); }
int bionic_fputc(int c, FILE *f) { return silent(f) ? c : fputc(c, stream(f)); }
int bionic_fileno(FILE *f) { return fileno(stream(f)); }

/* ---- Android's own functions ------------------------------------------------------ */

int *bionic___errno(void) { return &errno; }

/* TFLite leaves XNNPACK off unless it finds an API level; int8 then rounds otherwise. */
int bionic___system_property_get(const char *name, char *value) {
  strcpy(value, strcmp(name, "ro.build.version.sdk") ? "" : "34");
  return (int)strlen(value);
}

void bionic_android_set_abort_message(const char *message) { fputs(message, stderr); }

/* Shows warnings and worse, which are Android's levels from 5 on. */
int bionic___android_log_vprint(int level, const char *tag, const char *format,
                                va_list arguments) {
  if (level < 5) return 0;
  int written = fprintf(stderr, "%s: ", tag);
  written += vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  return written;
}

int bionic___android_log_print(int level, const char *tag, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = bionic___android_log_vprint(level, tag, format, arguments);
  va_end(arguments);
  return written;
}

/* ---- Checked and differently numbered functions ----------------------------------- */

size_t bionic___strlen_chk(const char *text, size_t size) {
  (void)size;
  return strlen(text);
}

int bionic___open_2(const char *path, int flags) { return open(path, flags); }

extern int __xpg_strerror_r(int, char *, size_t);
int bionic_strerror_r(int error, char *buffer, size_t size) {
  return __xpg_strerror_r(error, buffer, size); /* bionic's is the POSIX one */
}

long bionic_sysconf(int bionic_name) {
  switch (bionic_name) {
    case 0x27: /* _SC_PAGESIZE */
    case 0x28: return sysconf(_SC_PAGESIZE);
    case 0x60: return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61: return sysconf(_SC_NPROCESSORS_ONLN);
    case 0x62: return sysconf(_SC_PHYS_PAGES);
    default: return -1;
  }
}

/* ---- Mutexes: bionic's have 40 bytes, glibc's initializer would clear 48 on arm64 -- */

int bionic_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr) {
  int type = attr ? *(const int *)attr & 15 : 0;
  memset(mutex, 0, 40);
  mutex->__data.__kind = type == 1   ? PTHREAD_MUTEX_RECURSIVE
                         : type == 2 ? PTHREAD_MUTEX_ERRORCHECK
                                     : PTHREAD_MUTEX_NORMAL;
  return 0;
}

int bionic_pthread_mutexattr_init(int *attr) { return *attr = 0; }
int bionic_pthread_mutexattr_destroy(int *attr) { return (void)attr, 0; }
int bionic_pthread_mutexattr_settype(int *attr, int type) { return *attr = type, 0; }

/* ---- Memory: XNNPACK's mobile build aligns to less than 64 bytes, yet its AVX-512
 *      kernels, which it takes on such hosts, load at 64-byte alignment ------------- */

static size_t at_least_64(size_t alignment) { return alignment < 64 ? 64 : alignment; }

void *bionic_memalign(size_t alignment, size_t size) {
  return memalign(at_least_64(alignment), size);
}

int bionic_posix_memalign(void **memory, size_t alignment, size_t size) {
  return posix_memalign(memory, at_least_64(alignment), size);
}
