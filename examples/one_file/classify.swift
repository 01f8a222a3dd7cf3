// A .tflite model that stops by itself, on iOS and macOS, with TensorFlowLiteC (the C API as
// a pod or framework). Shown, not run: the project's machines have no Swift.
//
// Arguments: MODEL IMAGES [BETA [MAX_EXIT]]. IMAGES holds raw pixels, one byte each, one image
// after another. Prints for each image the exit that answered, counted from 1, and the label.
import Foundation
import TensorFlowLiteC

let arguments = CommandLine.arguments
let beta = arguments.count > 3 ? Float(arguments[3])! : 0
let signature = arguments.count > 4 ? "max_exit" : "serving_default"
let maxExit = arguments.count > 4 ? Int32(arguments[4])! : 0
let pixels = try Data(contentsOf: URL(fileURLWithPath: arguments[2]))

let options = TfLiteInterpreterOptionsCreate()
TfLiteInterpreterOptionsSetNumThreads(options, 1)
guard let model = TfLiteModelCreateFromFile(arguments[1]),
      let interpreter = TfLiteInterpreterCreate(model, options),
      let runner = TfLiteInterpreterGetSignatureRunner(interpreter, signature),
      TfLiteSignatureRunnerAllocateTensors(runner) == kTfLiteOk
else { fatalError("MODEL is no model.") }

func input<T>(_ name: String, as type: T.Type) -> UnsafeMutablePointer<T> {
  let tensor = TfLiteSignatureRunnerGetInputTensor(runner, name)
  return TfLiteTensorData(tensor)!.assumingMemoryBound(to: type)
}

func output<T>(_ name: String, as type: T.Type) -> UnsafeBufferPointer<T> {
  let tensor = TfLiteSignatureRunnerGetOutputTensor(runner, name)
  let data = TfLiteTensorData(tensor)!.assumingMemoryBound(to: type)
  let count = TfLiteTensorByteSize(tensor) / MemoryLayout<T>.size
  return UnsafeBufferPointer(start: data, count: count)
}

for index in 0..<Int32(TfLiteSignatureRunnerGetInputCount(runner)) {
  switch String(cString: TfLiteSignatureRunnerGetInputName(runner, index)) {
  case "beta": input("beta", as: Float.self).pointee = beta
  case "max_exit": input("max_exit", as: Int32.self).pointee = maxExit
  default: break
  }
}
let image = input("image", as: Float.self)
let size = TfLiteTensorByteSize(TfLiteSignatureRunnerGetInputTensor(runner, "image")) / 4
for start in stride(from: 0, to: pixels.count, by: size) {
  for i in 0..<size { image[i] = Float(pixels[start + i]) }
  guard TfLiteSignatureRunnerInvoke(runner) == kTfLiteOk else { fatalError("The model fails.") }
  let logits = output("logits", as: Float.self)
  let label = logits.indices.max { logits[$0] < logits[$1] }!
  print(output("exit", as: Int32.self)[0], label)
}
