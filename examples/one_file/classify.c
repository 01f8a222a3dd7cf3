/* A .tflite model that stops by itself, with TFLite's C API: nothing of EPNet's is needed.
 *
 * usage: classify MODEL IMAGES [BETA [MAX_EXIT]]
 *
 * IMAGES holds raw pixels, one byte each, one image after another. Prints for each image
 * the exit that answered, counted from 1, the label and the logits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/lite/c/c_api.h"
#include "tensorflow/lite/c/c_api_experimental.h"

TfLiteDelegate *TfLiteXNNPackDelegateCreate(const void *); /* the AAR lacks its header */

static void *check(const void *pointer, const char *what) {
  if (pointer) return (void *)pointer;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

int main(int count, char **arguments) {
  check(count > 2 ? arguments : NULL, "usage: classify MODEL IMAGES [BETA [MAX_EXIT]]");
  TfLiteModel *model = check(TfLiteModelCreateFromFile(arguments[1]), "MODEL is no model.");
  TfLiteInterpreterOptions *options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsSetNumThreads(options, 1);
  TfLiteInterpreterOptionsAddDelegate(options, TfLiteXNNPackDelegateCreate(NULL));
  TfLiteInterpreter *interpreter = TfLiteInterpreterCreate(model, options);
  const char *signature = count > 4 ? "max_exit" : "serving_default";
  TfLiteSignatureRunner *runner = check(
      TfLiteInterpreterGetSignatureRunner(interpreter, signature), "No such signature.");
  check(TfLiteSignatureRunnerAllocateTensors(runner) == kTfLiteOk ? runner : NULL, "No memory.");

  for (size_t i = 0; i < TfLiteSignatureRunnerGetInputCount(runner); i++) {
    const char *name = TfLiteSignatureRunnerGetInputName(runner, i);
    void *data = TfLiteTensorData(TfLiteSignatureRunnerGetInputTensor(runner, name));
    if (!strcmp(name, "beta")) *(float *)data = count > 3 ? atof(arguments[3]) : 0;
    if (!strcmp(name, "max_exit")) *(int *)data = atoi(arguments[4]);
  }
  TfLiteTensor *image = TfLiteSignatureRunnerGetInputTensor(runner, "image");
  size_t size = TfLiteTensorByteSize(image) / sizeof(float);
  unsigned char *pixels = malloc(size);
  FILE *images = check(fopen(arguments[2], "rb"), "IMAGES cannot be read.");
  while (fread(pixels, 1, size, images) == size) {
    float *values = TfLiteTensorData(image);
    for (size_t i = 0; i < size; i++) values[i] = pixels[i];
    check(TfLiteSignatureRunnerInvoke(runner) == kTfLiteOk ? runner : NULL, "The model fails.");

    const TfLiteTensor *exit_at = TfLiteSignatureRunnerGetOutputTensor(runner, "exit");
    const TfLiteTensor *answer = TfLiteSignatureRunnerGetOutputTensor(runner, "logits");
    const float *logits = TfLiteTensorData(answer);
    int classes = TfLiteTensorByteSize(answer) / sizeof(float), label = 0;
    for (int k = 1; k < classes; k++) label = logits[k] > logits[label] ? k : label;
    printf("%d %d", *(int *)TfLiteTensorData(exit_at), label);
    for (int k = 0; k < classes; k++) printf(" %.9g", logits[k]);
    printf("\n");
  }
  TfLiteSignatureRunnerDelete(runner);
  TfLiteInterpreterDelete(interpreter);
  TfLiteInterpreterOptionsDelete(options);
  TfLiteModelDelete(model);
  return 0;
}
