package ai.epnet.engine

/** Name of the manifest in every bundle. */
internal const val MANIFEST_FILE = "epnet.json"

private const val FORMAT = "epnet-bundle"
private const val VERSION = 1L
private val SHA256 = Regex("[0-9a-f]{64}")
private val PLAIN_FILE_NAME = Regex("[A-Za-z0-9_-][A-Za-z0-9._-]*")

/**
 * Reads a manifest from the [text] of the file [where] and checks that it is one that this
 * version understands and that its parts fit together.
 */
internal fun readManifest(text: String, where: String): Manifest {
    val json = JsonFields.parse(text, where)
    checkFormat(json, where)
    val input = readInput(json.fields("input"))
    val labels = json.texts("labels")
    if (labels.isEmpty()) throw fault(json.at("labels"), "none", "at least one")
    val policy = json.fields("policy")
    if (policy.text("type") != "controller") {
        throw fault(policy.at("type"), policy.text("type"), "controller")
    }
    val betaRange = readBetaRange(policy)
    val segments = json.objects("segments").map(::readSegment)
    val model = json.fieldsOrNull("model")?.let(::readModel)
    if (segments.isEmpty() && model == null) throw noSegments(where)
    checkSegments(segments, json.at("segments"))
    checkTensors(segments, input.name, betaRange != null, where)
    return Manifest(
        name = json.text("name"),
        input = input,
        labels = labels,
        quantization = json.text("quantization"),
        threshold = policy.number("threshold").toFloat(),
        beta = if (betaRange == null) policy.number("beta") else null,
        betaRange = betaRange,
        fullMacs = json.wholeNumber("full_macs"),
        segments = segments,
        model = model,
    )
}

private fun checkFormat(json: JsonFields, where: String) {
    val format = json.text("format")
    if (format != FORMAT) throw fault("$where, format", format, FORMAT)
    val version = json.wholeNumber("version")
    if (version != VERSION) throw fault("$where, version", version, VERSION)
}

private fun readInput(json: JsonFields): InputSpec {
    val type = json.text("dtype")
    val pixelType = PixelType.entries.find { it.name.lowercase() == type }
        ?: throw fault(json.at("dtype"), type, "float32, uint8 or int8")
    val quantization = json.fieldsOrNull("quantization")?.let(::readQuantization)
    if (quantization == null && pixelType == PixelType.INT8) {
        throw fault(json.at("quantization"), "none", "scale and zero_point, for int8")
    }
    return InputSpec(json.text("name"), readShape(json), pixelType, quantization)
}

private fun readQuantization(json: JsonFields): Quantization {
    val scale = json.number("scale").toFloat()
    if (scale <= 0) throw fault(json.at("scale"), scale, "more than 0")
    return Quantization(scale, json.number("zero_point").toInt())
}

/** Height, width and channels, with or without the batch of 1 before them. */
private fun readShape(json: JsonFields): List<Int> {
    val shape = json.numbers("shape").map { it.toInt() }
    val image = if (shape.size == 4 && shape[0] == 1) shape.drop(1) else shape
    if (image.size != 3 || image.any { it !in 1..MAX_SIDE } || image[2] !in listOf(1, 3)) {
        throw fault(json.at("shape"), shape, "[1, height, width, 1 or 3]")
    }
    return image
}

private const val MAX_SIDE = 4096

private fun readBetaRange(policy: JsonFields): ClosedRange<Double>? {
    if (!policy.has("beta_range")) return null
    val range = policy.numbers("beta_range")
    if (range.size != 2 || range[0] <= 0 || range[1] < range[0]) {
        throw fault(policy.at("beta_range"), range, "[low, high] with 0 < low <= high")
    }
    return range[0]..range[1]
}

/** What is wrong with a manifest, from the file [where], that needs segments. */
internal fun noSegments(where: String) = fault("$where, segments", "none", "at least one")

private fun readModel(json: JsonFields): ModelSpec {
    val macs = json.objects("exits").map { it.wholeNumber("cumulative_macs") }
    if (macs.isEmpty()) throw fault(json.at("exits"), "none", "at least one")
    return ModelSpec(readFileName(json), readSha256(json), json.wholeNumber("bytes"), macs)
}

private fun readFileName(json: JsonFields): String {
    val file = json.text("file")
    if (!PLAIN_FILE_NAME.matches(file)) {
        throw fault(json.at("file"), file, "the name of a file in the bundle")
    }
    return file
}

private fun readSha256(json: JsonFields): String {
    val sha256 = json.text("sha256")
    if (!SHA256.matches(sha256)) {
        throw fault(json.at("sha256"), sha256, "64 hexadecimal digits")
    }
    return sha256
}

private fun readSegment(json: JsonFields): SegmentSpec =
    SegmentSpec(
        file = readFileName(json),
        sha256 = readSha256(json),
        bytes = json.wholeNumber("bytes"),
        exit = json.wholeNumber("exit").toInt(),
        layer = json.text("layer"),
        inputs = json.texts("inputs"),
        outputs = json.texts("outputs"),
        macs = json.wholeNumber("macs"),
        cumulativeMacs = json.wholeNumber("cumulative_macs"),
    )

/** Exits rise from at least 1, and the cumulative MACs are the sums of the MACs. */
private fun checkSegments(segments: List<SegmentSpec>, where: String) {
    var exit = 0
    var macs = 0L
    for (segment in segments) {
        if (segment.exit <= exit) {
            throw fault("$where, exit of ${segment.file}", segment.exit, "more than $exit")
        }
        macs += segment.macs
        if (segment.cumulativeMacs != macs) {
            val name = "$where, cumulative_macs of ${segment.file}"
            throw fault(name, segment.cumulativeMacs, macs)
        }
        exit = segment.exit
    }
}

/** Every tensor is made before it is read, and every exit answers. */
private fun checkTensors(
    segments: List<SegmentSpec>,
    image: String,
    takesBeta: Boolean,
    where: String,
) {
    val made = mutableSetOf(image)
    if (takesBeta) made += BETA_NAME
    for (segment in segments) {
        for (name in segment.inputs) {
            if (name !in made) {
                val reader = "$where, inputs of ${segment.file}"
                throw fault(reader, name, "tensors that earlier segments made: $made")
            }
        }
        val heads = listOfNotNull(
            segment.logitsName,
            segment.stopName.takeIf { segment !== segments.last() },
        )
        for (name in heads) {
            if (name !in segment.outputs) {
                throw fault("$where, outputs of ${segment.file}", segment.outputs, "also $name")
            }
        }
        made += segment.outputs
    }
}
