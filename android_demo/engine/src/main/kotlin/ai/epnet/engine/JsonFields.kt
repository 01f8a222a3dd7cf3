package ai.epnet.engine

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/**
 * Strict access to one JSON object: org.json turns types into one another, this does not.
 *
 * @param where file and place, for messages.
 */
internal class JsonFields(private val json: JSONObject, private val where: String) {

    fun text(key: String): String = typed(key, "a text")

    fun flag(key: String): Boolean = typed(key, "true or false")

    fun number(key: String): Double = typed<Number>(key, "a number").toDouble()
        .also { if (!it.isFinite()) throw fault(at(key), it, "a finite number") }

    fun wholeNumber(key: String): Long {
        val number = number(key)
        val expected = "a whole number of at least 0"
        if (number < 0 || number % 1.0 != 0.0 || number > MAX_WHOLE) {
            throw fault(at(key), number, expected)
        }
        return number.toLong()
    }

    fun fields(key: String): JsonFields = JsonFields(typed(key, "an object"), at(key))

    fun fieldsOrNull(key: String): JsonFields? = if (json.isNull(key)) null else fields(key)

    fun has(key: String): Boolean = !json.isNull(key)

    fun texts(key: String): List<String> = list(key, "a list of texts") { it as? String }

    fun numbers(key: String): List<Double> =
        list(key, "a list of numbers") { (it as? Number)?.toDouble() }

    fun objects(key: String): List<JsonFields> {
        var index = 0
        return list(key, "a list of objects") { element ->
            (element as? JSONObject)?.let { JsonFields(it, "${at(key)}[${index++}]") }
        }
    }

    fun at(key: String): String = "$where, $key"

    private fun <T : Any> list(key: String, expected: String, convert: (Any) -> T?): List<T> {
        val array = typed<JSONArray>(key, expected)
        return List(array.length()) {
            val element = array.opt(it)
            element?.let(convert) ?: throw fault(at(key), element, expected)
        }
    }

    private inline fun <reified T> typed(key: String, expected: String): T {
        val found = json.opt(key) ?: throw fault(at(key), "nothing", expected)
        return found as? T ?: throw fault(at(key), found, expected)
    }

    companion object {
        /** Whole numbers up to here are exact as doubles. */
        private const val MAX_WHOLE = 9.0e15

        /** Parses [text], which must be one JSON object; [where] names the file. */
        fun parse(text: String, where: String): JsonFields =
            try {
                JsonFields(JSONObject(text), where)
            } catch (e: JSONException) {
                throw fault(where, "text that is not JSON (${e.message})", "a JSON object", e)
            }
    }
}
