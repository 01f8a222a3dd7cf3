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
    val input = readInput(json.fields("input"), json.fieldsOrNull("preprocessing"))
    val labels = json.texts("labels")
    if (labels.isEmpty()) throw fault(json.at("labels"), "none", "at least one")
    val policy = json.fields("policy")
    val type = named<PolicyType>(policy, "type")
    val betaRange = readBetaRange(policy, type)
    val segments = json.objects("segments").map(::readSegment)
    val model = json.fieldsOrNull("model")?.let(::readModel)
    if (segments.isEmpty() && model == null) throw noSegments(where)
    checkSegments(segments, json.at("segments"))
    checkTensors(segments, input.name, betaRange != null, where)
    val macs = model?.cumulativeMacs?.takeIf { segments.isEmpty() }
        ?: segments.map { it.cumulativeMacs }
    val costs = readCosts(json, macs)
    return Manifest(
        name = json.text("name"),
        input = input,
        labels = labels,
        quantization = json.text("quantization"),
        policy = type,
        threshold = policy.number("threshold").toFloat(),
        confidence = readConfidence(policy, type, macs.size - 1),
        beta = if (betaRange == null) policy.number("beta") else null,
        betaRange = betaRange,
        fullMacs = json.wholeNumber("full_macs"),
        costUnit = costs.unit,
        costs = costs.perExit,
        fullCost = costs.full,
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

private fun readInput(json: JsonFields, preprocessing: JsonFields?): InputSpec {
    val pixelType = named<PixelType>(json, "dtype")
    val quantization = json.fieldsOrNull("quantization")?.let(::readQuantization)
    if (quantization == null && pixelType == PixelType.INT8) {
        throw fault(json.at("quantization"), "none", "scale and zero_point, for int8")
    }
    val shape = readShape(json)
    val crops = preprocessing != null && readCrops(preprocessing, shape)
    return InputSpec(json.text("name"), shape, pixelType, quantization, crops)
}

/** The value of the enumeration that has the name at [key], in lower case. */
private inline fun <reified T : Enum<T>> named(json: JsonFields, key: String): T {
    val found = json.text(key)
    val names = enumValues<T>().map { it.name.lowercase() }
    val place = names.indexOf(found)
    if (place < 0) {
        val expected = "${names.dropLast(1).joinToString()} or ${names.last()}"
        throw fault(json.at(key), found, expected)
    }
    return enumValues<T>()[place]
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

/** Whether pictures are cropped; all else that may be said of them has to be what is done. */
private fun readCrops(json: JsonFields, shape: List<Int>): Boolean {
    fun check(key: String, found: Any, expected: Any) {
        if (found != expected) throw fault(json.at(key), found, expected)
    }
    check("height", json.wholeNumber("height").toInt(), shape[0])
    check("width", json.wholeNumber("width").toInt(), shape[1])
    check("channels", json.text("channels"), if (shape[2] == 1) "L" else "RGB")
    check("resize", json.text("resize"), "bilinear")
    check("antialias", json.flag("antialias"), true)
    check("range", json.numbers("range"), listOf(0.0, 255.0))
    val crop = json.text("crop")
    if (crop !in listOf("none", "center")) throw fault(json.at("crop"), crop, "none or center")
    return crop == "center"
}

private fun readBetaRange(policy: JsonFields, type: PolicyType): ClosedRange<Double>? {
    if (!policy.has("beta_range")) return null
    val range = policy.numbers("beta_range")
    if (type == PolicyType.THRESHOLD) {
        throw fault(policy.at("beta_range"), range, "none: thresholds are for one beta")
    }
    if (range.size != 2 || range[0] <= 0 || range[1] < range[0]) {
        throw fault(policy.at("beta_range"), range, "[low, high] with 0 < low <= high")
    }
    return range[0]..range[1]
}

/** A probability for each of the [controlled] exits; controllers have none. */
private fun readConfidence(
    policy: JsonFields,
    type: PolicyType,
    controlled: Int,
): List<Double>? {
    if (type == PolicyType.CONTROLLER) {
        if (!policy.has("confidence")) return null
        val found = policy.numbers("confidence")
        throw fault(policy.at("confidence"), found, "none: controllers decide")
    }
    val confidence = policy.numbers("confidence")
    if (confidence.size != controlled || confidence.any { it !in 0.0..1.0 }) {
        throw fault(policy.at("confidence"), confidence, "$controlled numbers from 0 to 1")
    }
    return confidence
}

private class Costs(val unit: String, val perExit: List<Double>, val full: Double)

/** Costs in the bundle's unit or, where it names none, the multiply-adds. */
private fun readCosts(json: JsonFields, macs: List<Long>): Costs {
    val unit = if (json.has("cost_unit")) json.text("cost_unit") else MACS
    if (unit == MACS) {
        for (key in listOf("costs", "full_cost")) {
            if (json.has(key)) throw fault(json.at(key), "some", "none where cost_unit is $MACS")
        }
        return Costs(MACS, macs.map { it.toDouble() }, json.number("full_macs"))
    }
    if (unit.isBlank()) throw fault(json.at("cost_unit"), "no word", "a unit")
    val costs = json.numbers("costs")
    val rising = costs.zipWithNext().all { (before, after) -> before <= after }
    if (costs.size != macs.size || !costs.all { it > 0 && it.isFinite() } || !rising) {
        throw fault(json.at("costs"), costs, "${macs.size} numbers above 0 that do not fall")
    }
    val full = json.number("full_cost")
    if (full <= 0) throw fault(json.at("full_cost"), full, "more than 0")
    return Costs(unit, costs, full)
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
