import java.io.File;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.tensorflow.lite.Interpreter;

/**
 * A .tflite model that stops by itself, with TFLite's Interpreter alone.
 *
 * <p>Arguments: MODEL IMAGES [BETA [MAX_EXIT]]. IMAGES holds raw pixels, one byte each, one
 * image after another. Prints for each image the exit that answered, counted from 1, the label
 * and the logits.
 */
public final class Classify {
  public static void main(String[] arguments) throws Exception {
    byte[] pixels = Files.readAllBytes(new File(arguments[1]).toPath());
    Interpreter.Options options = new Interpreter.Options().setNumThreads(1);
    try (Interpreter model = new Interpreter(new File(arguments[0]), options)) {
      String signature = arguments.length > 3 ? "max_exit" : "serving_default";
      int[] shape = model.getInputTensorFromSignature("image", signature).shape();
      int classes = model.getOutputTensorFromSignature("logits", signature).shape()[1];
      float[][][][] image = new float[1][shape[1]][shape[2]][shape[3]];
      float beta = arguments.length > 2 ? Float.parseFloat(arguments[2]) : 0;
      int maxExit = arguments.length > 3 ? Integer.parseInt(arguments[3]) : 0;
      Map<String, Object> inputs = new HashMap<>();
      inputs.put("image", image);
      inputs.put("beta", new float[][] {{beta}});
      inputs.put("max_exit", new int[] {maxExit});
      inputs.keySet().retainAll(Arrays.asList(model.getSignatureInputs(signature)));

      int[] exit = new int[1];
      float[][] logits = new float[1][classes];
      Map<String, Object> outputs = Map.of("exit", exit, "logits", logits);
      for (int next = 0; next < pixels.length; ) {
        for (float[][] row : image[0]) {
          for (float[] pixel : row) {
            for (int c = 0; c < pixel.length; c++) pixel[c] = pixels[next++] & 255;
          }
        }
        model.runSignature(inputs, outputs, signature);
        int label = 0;
        for (int k = 1; k < classes; k++) if (logits[0][k] > logits[0][label]) label = k;
        StringBuilder line = new StringBuilder().append(exit[0]).append(' ').append(label);
        for (float logit : logits[0]) line.append(' ').append(logit);
        System.out.println(line);
      }
    }
  }
}
