package ai.epnet.demo

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** Pictures of the app, to be looked at. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ScreenshotTest {
    @Config(qualifiers = "w411dp-h820dp-port-notnight-xhdpi")
    @Test fun light() = show("light")

    @Config(qualifiers = "w411dp-h820dp-port-night-xhdpi")
    @Test fun dark() = show("dark")

    @Config(qualifiers = "w820dp-h411dp-land-notnight-xhdpi")
    @Test fun landscape() = Phone().use { phone ->
        phone.settle()
        phone.chooseExample(5)
        phone.screenshot("landscape")
    }

    private fun show(name: String) = Phone().use { phone ->
        phone.settle()
        phone.screenshot("$name-empty")
        drawSevenAndOne(phone)
        phone.screenshot("$name-drawn")
        phone.chooseExample(9)
        phone.click(R.id.run_all)
        phone.settle()
        phone.screenshot("$name-all", whole = true)
    }

    private fun drawSevenAndOne(phone: Phone) {
        phone.draw(0.12f to 0.2f, 0.42f to 0.2f, 0.25f to 0.58f)
        phone.draw(0.7f to 0.5f, 0.78f to 0.46f, 0.76f to 0.88f)
    }
}
