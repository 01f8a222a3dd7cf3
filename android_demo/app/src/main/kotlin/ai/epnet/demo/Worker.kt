package ai.epnet.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/**
 * One thread on which everything that touches a classifier happens, as classifiers are not
 * thread-safe. Results come back on the main thread.
 */
class Worker {
    private val executor: ExecutorService = Executors.newSingleThreadExecutor { task ->
        Thread(task, "inference")
    }
    private val main = Handler(Looper.getMainLooper())

    /** Runs [task] on the worker's thread, then [done] with its result on the main thread. */
    fun <T> run(task: () -> T, done: (Result<T>) -> Unit) {
        executor.execute {
            val result = runCatching(task)
            main.post { done(result) }
        }
    }

    /** Runs [last] after what is still waiting, and ends the thread. */
    fun close(last: () -> Unit) {
        executor.execute(last)
        executor.shutdown()
    }
}
