package ai.epnet.headless;

import java.util.Arrays;

/** Runs a program that uses TFLite as it would on a phone, where the library is at hand. */
public final class Launch {
  private Launch() {}

  /**
   * Loads TFLite, then calls {@code main} of a class.
   *
   * @param arguments the name of the class, then the arguments of its {@code main}.
   */
  public static void main(String[] arguments) throws Exception {
    if (!TfliteOnJvm.load()) {
      throw new IllegalStateException("The system property tflite.native is not set.");
    }
    Object rest = Arrays.copyOfRange(arguments, 1, arguments.length);
    Class.forName(arguments[0]).getMethod("main", String[].class).invoke(null, rest);
  }
}
