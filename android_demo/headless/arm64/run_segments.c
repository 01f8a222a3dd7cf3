/* Runs a bundle's segments on many images with the C API of Android's TFLite library,
 * stopping where the controllers say so. For ARM64 under qemu; see check_arm64.py.
 *
 * usage: run_segments LIBRARIES PLAN IMAGES
 *
 * LIBRARIES  directory with the shim and libtensorflowlite_jni.so
 * PLAN       text: "threshold T", then for each segment "segment EXIT FILE"
 * IMAGES     the image tensors, one after another
 *
 * Prints "EXIT LABEL" for each image. Tensors are bound by their names in the signature.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SEGMENTS 512
#define MAX_TENSORS 16

/* ---- The C API, taken from the library by name ------------------------------------ */

static void *(*ModelFromFile)(const char *);
static void *(*OptionsCreate)(void);
static void (*SetThreads)(void *, int);
static void (*AddDelegate)(void *, void *);
static void *(*XnnpackCreate)(const void *);
static void *(*InterpreterCreate)(void *, void *);
static void *(*GetRunner)(void *, const char *);
static const char *(*SignatureKey)(void *, int);
static int (*Allocate)(void *);
static int (*Invoke)(void *);
static size_t (*InputCount)(void *);
static size_t (*OutputCount)(void *);
static const char *(*InputName)(void *, int);
static const char *(*OutputName)(void *, int);
static void *(*InputTensor)(void *, const char *);
static const void *(*OutputTensor)(void *, const char *);
static size_t (*ByteSize)(const void *);
static void *(*Data)(const void *);

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static void load_library(const char *directory) {
  const char *names[] = {"bionic", "m", "dl", "log", "c", "tensorflowlite_jni"};
  void *library = NULL;
  for (int i = 0; i < 6; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/lib%s.so", directory, names[i]);
    library = dlopen(path, RTLD_NOW);
    if (!library) fail("%s", dlerror());
  }
  struct {
    const char *name;
    void *function;
  } api[] = {
      {"TfLiteModelCreateFromFile", &ModelFromFile},
      {"TfLiteInterpreterOptionsCreate", &OptionsCreate},
      {"TfLiteInterpreterOptionsSetNumThreads", &SetThreads},
      {"TfLiteInterpreterOptionsAddDelegate", &AddDelegate},
      {"TfLiteXNNPackDelegateCreate", &XnnpackCreate},
      {"TfLiteInterpreterCreate", &InterpreterCreate},
      {"TfLiteInterpreterGetSignatureRunner", &GetRunner},
      {"TfLiteInterpreterGetSignatureKey", &SignatureKey},
      {"TfLiteSignatureRunnerAllocateTensors", &Allocate},
      {"TfLiteSignatureRunnerInvoke", &Invoke},
      {"TfLiteSignatureRunnerGetInputCount", &InputCount},
      {"TfLiteSignatureRunnerGetOutputCount", &OutputCount},
      {"TfLiteSignatureRunnerGetInputName", &InputName},
      {"TfLiteSignatureRunnerGetOutputName", &OutputName},
      {"TfLiteSignatureRunnerGetInputTensor", &InputTensor},
      {"TfLiteSignatureRunnerGetOutputTensor", &OutputTensor},
      {"TfLiteTensorByteSize", &ByteSize},
      {"TfLiteTensorData", &Data},
  };
  for (size_t i = 0; i < sizeof api / sizeof *api; i++) {
    void *function = dlsym(library, api[i].name);
    if (!function) fail("The library has no %s", api[i].name);
    *(void **)api[i].function = function;
  }
}

/* ---- Segments --------------------------------------------------------------------- */

struct copy {
  void *to;
  const void *from;
  size_t bytes;
};

struct segment {
  int exit;
  void *runner;
  struct copy inputs[MAX_TENSORS];
  int num_inputs;
  const float *logits, *stop; /* stop is NULL at the last exit */
  int num_classes;
};

static struct segment segments[MAX_SEGMENTS];
static int num_segments;
static void *image;
static size_t image_bytes;

/* Where the tensor `name` is: the image, or an output of an earlier segment. */
static const void *source(const char *name, size_t bytes) {
  if (!strcmp(name, "image")) {
    if (!image) image = malloc(image_bytes = bytes);
    return image;
  }
  for (int k = 0; k < num_segments; k++) {
    void *runner = segments[k].runner;
    for (size_t i = 0; i < OutputCount(runner); i++) {
      if (strcmp(OutputName(runner, i), name)) continue;
      const void *tensor = OutputTensor(runner, name);
      if (ByteSize(tensor) == bytes) return Data(tensor);
    }
  }
  fail("No earlier segment makes %s of %zu bytes", name, bytes);
  return NULL;
}

static void open_segment(int exit, const char *file) {
  if (num_segments == MAX_SEGMENTS) fail("More than %d segments", MAX_SEGMENTS);
  struct segment *s = &segments[num_segments];
  void *model = ModelFromFile(file), *options = OptionsCreate();
  if (!model) fail("%s is no model", file);
  SetThreads(options, 1);
  AddDelegate(options, XnnpackCreate(NULL));
  void *interpreter = InterpreterCreate(model, options);
  if (!interpreter) fail("%s cannot be run", file);
  s->exit = exit;
  s->runner = GetRunner(interpreter, SignatureKey(interpreter, 0));
  if (!s->runner || Allocate(s->runner)) fail("%s cannot be allocated", file);
  for (size_t i = 0; i < InputCount(s->runner); i++) {
    if (s->num_inputs == MAX_TENSORS) fail("%s has too many inputs", file);
    const char *name = InputName(s->runner, i);
    void *tensor = InputTensor(s->runner, name);
    struct copy copy = {Data(tensor), source(name, ByteSize(tensor)), ByteSize(tensor)};
    s->inputs[s->num_inputs++] = copy;
  }
  for (size_t i = 0; i < OutputCount(s->runner); i++) {
    const char *name = OutputName(s->runner, i);
    const void *tensor = OutputTensor(s->runner, name);
    if (!strncmp(name, "logits_", 7)) {
      s->logits = Data(tensor);
      s->num_classes = ByteSize(tensor) / sizeof(float);
    }
    if (!strncmp(name, "stop_", 5)) s->stop = Data(tensor);
  }
  if (!s->logits) fail("%s has no logits", file);
  num_segments++;
}

static float read_plan(const char *path) {
  FILE *plan = fopen(path, "r");
  char file[4096];
  float threshold;
  int exit;
  if (!plan || fscanf(plan, "threshold %f", &threshold) != 1) fail("%s is no plan", path);
  while (fscanf(plan, " segment %d %4095s", &exit, file) == 2) open_segment(exit, file);
  fclose(plan);
  return threshold;
}

static const struct segment *run_image(float threshold) {
  for (int k = 0;; k++) {
    struct segment *s = &segments[k];
    for (int i = 0; i < s->num_inputs; i++)
      memcpy(s->inputs[i].to, s->inputs[i].from, s->inputs[i].bytes);
    if (Invoke(s->runner)) fail("The segment of exit %d fails", s->exit);
    if (k == num_segments - 1 || (s->stop && *s->stop > threshold)) return s;
  }
}

int main(int count, char **arguments) {
  if (count != 4) fail("usage: run_segments LIBRARIES PLAN IMAGES");
  load_library(arguments[1]);
  float threshold = read_plan(arguments[2]);
  FILE *images = fopen(arguments[3], "rb");
  if (!images || !image) fail("%s cannot be read", arguments[3]);
  while (fread(image, image_bytes, 1, images) == 1) {
    const struct segment *s = run_image(threshold);
    int label = 0;
    for (int c = 1; c < s->num_classes; c++)
      if (s->logits[c] > s->logits[label]) label = c;
    printf("%d %d\n", s->exit, label);
  }
  return 0;
}
