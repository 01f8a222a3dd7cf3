package ai.epnet.headless;

import java.io.File;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Loads the Android build of TFLite into a desktop JVM, through the bionic shim. */
public final class TfliteOnJvm {
  /** Each library needs those before it. */
  private static final String[] LIBRARIES = {"bionic", "m", "dl", "log", "c", "tensorflowlite_jni"};

  /** TFLite looks for libraries of its own first, and says so at length. */
  private static final Logger LOGGER = Logger.getLogger("org.tensorflow.lite");

  private TfliteOnJvm() {}

  /**
   * Loads the libraries from the directory in the system property {@code tflite.native}.
   *
   * @return whether the property is set (the Maven build sets it, Gradle's unit tests do not).
   */
  public static boolean load() {
    String directory = System.getProperty("tflite.native");
    if (directory == null) {
      return false;
    }
    LOGGER.setLevel(Level.WARNING);
    for (String library : LIBRARIES) {
      System.load(new File(directory, "lib" + library + ".so").getAbsolutePath());
    }
    return true;
  }
}
