package ai.epnet.engine

/**
 * What `epnet.json` says about a bundle. MACs are multiply-adds; exits count from 1.
 *
 * @property name name of the model.
 * @property input the image that the model takes.
 * @property labels names of the classes, in the order of the logits.
 * @property quantization how the bundle was quantized, such as `int8`.
 * @property policy what decides where to stop.
 * @property threshold an exit stops when its stop logit is greater than this.
 * @property confidence with [PolicyType.THRESHOLD], for each exit but the last: it stops where
 *     its class is more probable than this; null for controllers.
 * @property beta cost sensitivity that the policy was made for, in points per unit of cost; null
 *     with [betaRange].
 * @property betaRange cost sensitivities that the controllers take as an input, or null.
 * @property fullMacs MACs of the plain network with its one classifier.
 * @property costUnit what costs are counted in: [MACS], `ms`, or the user's own word.
 * @property costs what leaving through each exit costs, in [costUnit].
 * @property fullCost what the plain network costs, in [costUnit].
 * @property segments the parts of the model, in the order in which they run; none where the
 *     bundle has the one file alone.
 * @property model the whole model in one file, for a [OneFileClassifier], or null.
 */
class Manifest internal constructor(
    val name: String,
    val input: InputSpec,
    val labels: List<String>,
    val quantization: String,
    val policy: PolicyType,
    val threshold: Float,
    val confidence: List<Double>?,
    val beta: Double?,
    val betaRange: ClosedRange<Double>?,
    val fullMacs: Long,
    val costUnit: String,
    val costs: List<Double>,
    val fullCost: Double,
    val segments: List<SegmentSpec>,
    val model: ModelSpec?,
) {
    /** Number of exits. */
    val numExits: Int get() = exits.size

    /** The exit at which an image can leave at the earliest. */
    val firstExit: Int get() = exits.first()

    /** The exit at which every image leaves at the latest. */
    val lastExit: Int get() = exits.last()

    /** What leaving through [exit] costs, in [costUnit]. */
    fun costOf(exit: Int): Double = costs[exits.indexOf(exit)]

    private val exits: List<Int> =
        segments.map { it.exit }.ifEmpty { model!!.cumulativeMacs.indices.map { it + 1 } }
}

/** The cost unit of multiply-adds, which holds where a bundle names no other. */
const val MACS = "macs"

/** What decides where to stop: a learned controller at each exit, or a confidence for each. */
enum class PolicyType { CONTROLLER, THRESHOLD }

/** A file of a bundle, as the manifest knows it. */
interface FileSpec {
    val file: String
    val sha256: String
    val bytes: Long
}

/**
 * The whole model in one file, which stops by itself.
 *
 * @property cumulativeMacs multiply-adds up to and with each exit.
 */
class ModelSpec internal constructor(
    override val file: String,
    override val sha256: String,
    override val bytes: Long,
    val cumulativeMacs: List<Long>,
) : FileSpec

/** Type of the model's image tensor. */
enum class PixelType(val bytes: Int) { FLOAT32(4), UINT8(1), INT8(1) }

/** Real value = [scale] * (stored value - [zeroPoint]). */
data class Quantization(val scale: Float, val zeroPoint: Int)

/**
 * The model's image: [height] x [width] x [channels] raw pixel values 0-255.
 *
 * @property crops whether a picture of other proportions is cropped about its centre, or
 *     stretched.
 */
class InputSpec internal constructor(
    val name: String,
    val shape: List<Int>,
    val type: PixelType,
    val quantization: Quantization?,
    val crops: Boolean = false,
) {
    val height: Int get() = shape[shape.size - 3]
    val width: Int get() = shape[shape.size - 2]
    val channels: Int get() = shape[shape.size - 1]

    /** Number of values of one image: the bytes of the ByteBuffer that `classify` takes. */
    val numValues: Int get() = height * width * channels
}

/**
 * One segment: the layers from the exit before up to this exit, and the exit's own heads.
 *
 * @property layer name of the layer that the exit hangs on.
 * @property inputs names of the tensors it reads: the image, or outputs of earlier segments.
 * @property outputs names of the tensors it makes.
 * @property macs its own multiply-adds.
 * @property cumulativeMacs multiply-adds up to and with this exit.
 */
class SegmentSpec internal constructor(
    override val file: String,
    override val sha256: String,
    override val bytes: Long,
    val exit: Int,
    val layer: String,
    val inputs: List<String>,
    val outputs: List<String>,
    val macs: Long,
    val cumulativeMacs: Long,
) : FileSpec {
    internal val logitsName: String get() = "logits_%02d".format(java.util.Locale.ROOT, exit)
    internal val stopName: String get() = "stop_%02d".format(java.util.Locale.ROOT, exit)
}

/** Name of the tensor that takes beta in bundles with a [Manifest.betaRange]. */
internal const val BETA_NAME = "beta"
