import Engine
import Foundation
import Glibc
import Synchronization

/// Writes text to standard output; a closed pipe ends the program quietly, as it does for other filters.
func standardOutput(_ text: String) {
    write(text, to: STDOUT_FILENO)
}

/// Writes text to standard error.
func standardError(_ text: String) {
    write(text, to: STDERR_FILENO)
}

private func write(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
        var rest = UnsafeRawBufferPointer(bytes)
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
            if count < 0 {
                if errno == EINTR { continue }
                // Nobody can be told that standard error is gone; a result that could not be written must not look like success.
                if descriptor == STDOUT_FILENO { _exit(ExitStatus.environment.rawValue) }
                return
            }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
    }
}

/// What is known of the terminal.
enum Terminal {
    /// Whether a descriptor is a terminal.
    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Settings of the terminal on standard input before they were changed; read by a signal handler, written while nothing else runs.
    private nonisolated(unsafe) static var settings: termios?

    /// Whether the settings are other ones than were found.
    static var hasOtherSettings: Bool { unsafe settings != nil }

    /// The settings as they were found, kept for `restoreSettings`; nil if standard input is no terminal.
    static func keepSettings() -> termios? {
        if let kept = unsafe settings { return kept }
        var found = termios()
        guard tcgetattr(STDIN_FILENO, &found) == 0 else { return nil }
        unsafe settings = found
        return found
    }

    /// Makes the terminal as it was found. May be called by a signal handler.
    static func restoreSettings() {
        guard var kept = unsafe settings else { return }
        tcsetattr(STDIN_FILENO, TCSADRAIN, &kept)
        unsafe settings = nil
    }

    /// Columns of the terminal on standard output, `COLUMNS`, or 100.
    static var width: Int {
        var size = winsize()
        if ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 { return Int(size.ws_col) }
        if let columns = ProcessInfo.processInfo.environment["COLUMNS"].flatMap(Int.init), columns > 0 {
            return columns
        }
        return 100
    }
}

/// Progress on standard error: in a terminal one line, from the third second on; elsewhere plain lines, one every ten seconds.
final class ProgressLine: Sendable {
    private struct State {
        var started = ContinuousClock.now
        var stage = ""
        var lastPrinted: ContinuousClock.Instant?
        var isShown = false
    }

    private let state = Mutex(State())
    private let isQuiet: Bool
    private let isTerminal = Terminal.isTerminal(STDERR_FILENO)

    init(_ options: ProgressOptions) {
        isQuiet = options.quiet
    }

    /// Shows an update, at most ten times a second, or every ten seconds.
    func show(_ update: ProgressUpdate) {
        guard !isQuiet else { return }
        state.withLock { state in
            let now = ContinuousClock.now
            if state.stage != update.stage {
                state.stage = update.stage
                state.started = now
            }
            let elapsed = seconds(now - state.started)
            guard elapsed > (isTerminal ? 2 : 10) else { return }
            if let last = state.lastPrinted, now - last < (isTerminal ? .milliseconds(100) : .seconds(10)) { return }
            state.lastPrinted = now
            guard isTerminal else {
                standardError("lorif: \(line(update, elapsed: elapsed))\n")
                return
            }
            state.isShown = true
            standardError("\r\u{1B}[K" + line(update, elapsed: elapsed))
        }
    }

    /// Removes the line.
    func clear() {
        state.withLock { state in
            if state.isShown { standardError("\r\u{1B}[K") }
            state.isShown = false
        }
    }

    private func line(_ update: ProgressUpdate, elapsed: Double) -> String {
        var parts = [update.stage]
        if let total = update.totalCount, total > 0 {
            if update.unit == .rows {
                parts.append("\(grouped(update.completedCount)) of \(grouped(total)) rows")
            }
            parts.append("\(100 * update.completedCount / total) %")
        } else {
            parts.append(grouped(update.completedCount))
        }
        if update.byteCount > 0 { parts.append(byteText(Int(Double(update.byteCount) / elapsed)) + "/s") }
        if let total = update.totalCount, update.completedCount > 0 {
            let left = elapsed * Double(total - update.completedCount) / Double(update.completedCount)
            parts.append("\(durationText(left)) left")
        }
        return parts.joined(separator: "  ")
    }
}

/// Turns Ctrl-C into a polite request; a second Ctrl-C ends the process at once.
enum Interruption {
    static let cancellation = Cancellation()
    private static let hasTermination = Atomic(false)

    /// Whether the process was told to end, and not only what it does.
    static var isEnding: Bool { hasTermination.load(ordering: .relaxed) }

    static func install() {
        signal(SIGPIPE, SIG_DFL)
        // A file that would grow beyond the user's limit is an error of its write, like a full disk.
        signal(SIGXFSZ, SIG_IGN)
        rearm()
    }

    /// Listens again after an interruption that ended only one of several operations.
    static func rearm() {
        cancellation.reset()
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                if Interruption.cancellation.isCancelled {
                    Terminal.restoreSettings()
                    _exit(130)
                }
                Interruption.cancellation.cancel()
                if number == SIGTERM { Interruption.hasTermination.store(true, ordering: .relaxed) }
                // Of a terminal with other settings the second signal has to be met, too.
                if !Terminal.hasOtherSettings { signal(number, SIG_DFL) }
            }
        }
    }
}

/// Runs a long operation with a progress line and Ctrl-C.
///
/// `promptExit`: for operations whose steps are long and that may be killed at any point; when Ctrl-C has not ended them after
/// a twentieth of a second, the process says this and ends.
func withProgress<T>(
    _ options: ProgressOptions, promptExit message: String? = nil, _ operation: (OperationControl) throws -> T
) rethrows -> T {
    let line = ProgressLine(options)
    defer { line.clear() }
    let watch = message.map { PromptExit(line: line, message: $0) }
    defer { watch?.end() }
    return try operation(OperationControl(cancellation: Interruption.cancellation) { line.show($0) })
}

/// Ends the process soon after Ctrl-C, unless the operation ends first.
private final class PromptExit: Sendable {
    private let isOver = Atomic(false)

    init(line: ProgressLine, message: String) {
        Thread.detachNewThread { [self] in
            while !isOver.load(ordering: .relaxed) {
                usleep(25_000)
                guard Interruption.cancellation.isCancelled else { continue }
                usleep(50_000)
                guard isOver.exchange(true, ordering: .relaxed) == false else { return }
                line.clear()
                standardError("lorif: \(message)\n")
                _exit(ExitStatus.interrupted.rawValue)
            }
        }
    }

    func end() { isOver.store(true, ordering: .relaxed) }
}
