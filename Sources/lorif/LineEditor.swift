import Foundation
import Glibc

/// Reads lines from a terminal: editing by the keys that shells have, history, completion. A long line scrolls sideways.
final class LineEditor {
    /// What came of one line.
    enum Outcome: Equatable {
        case line(String)
        /// Ctrl-C: what was typed is dropped.
        case interrupted
        /// Ctrl-D on an empty line, or the terminal is gone, or the process is to end.
        case end
    }

    /// What may follow: the words that could stand in place of the last `replacing` characters before the cursor.
    struct Completion {
        let replacing: Int
        let candidates: [String]
    }

    /// Lines entered before, the oldest first.
    var history: [String] = []
    /// Finds completions of the text before the cursor.
    var complete: (String) -> Completion = { _ in Completion(replacing: 0, candidates: []) }
    /// Whether to give up waiting for keys.
    var isCancelled: () -> Bool = { false }

    private var before = ""
    private var after = ""
    private var prompt = ""

    /// Shows the prompt and reads one line.
    ///
    /// Until `close` keys that are typed between two lines wait for the next one, unseen and as they are: a terminal that collects lines
    /// would turn a Ctrl-D into nothing. Ctrl-C is a signal then.
    func readLine(prompt: String) -> Outcome {
        guard let original = Terminal.keepSettings() else { return .end }
        var raw = original
        cfmakeraw(&raw)
        // Output keeps its line ends.
        raw.c_oflag = original.c_oflag
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)
        defer {
            raw.c_lflag |= tcflag_t(ISIG)
            tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)
        }
        (before, after) = ("", "")
        self.prompt = prompt
        let outcome = edit()
        standardOutput(outcome == .interrupted ? "^C\r\n" : "\r\n")
        return outcome
    }

    /// Makes the terminal as it was.
    func close() { Terminal.restoreSettings() }

    private func edit() -> Outcome {
        // The place in the history; its end stands for the new line, kept while others are looked at.
        var place = history.count
        var unfinished = ""
        func recall(_ wanted: Int) {
            guard wanted != place, (0...history.count).contains(wanted) else { return }
            if place == history.count { unfinished = before + after }
            place = wanted
            before = place == history.count ? unfinished : history[place]
            after = ""
        }
        while true {
            draw()
            guard let key = nextKey() else { return .end }
            switch key {
            case .text(let text): before += text
            case .enter: return finished()
            case .interrupt: return .interrupted
            case .endOrDelete:
                if before.isEmpty, after.isEmpty { return .end }
                if !after.isEmpty { after.removeFirst() }
            case .delete: if !after.isEmpty { after.removeFirst() }
            case .backspace: if !before.isEmpty { before.removeLast() }
            case .left: if let character = before.popLast() { after = String(character) + after }
            case .right: if !after.isEmpty { before.append(after.removeFirst()) }
            case .home: (before, after) = ("", before + after)
            case .end: (before, after) = (before + after, "")
            case .wordLeft:
                let word = lastWord(before)
                (before, after) = (String(before.dropLast(word)), before.suffix(word) + after)
            case .wordRight:
                let word = lastWord(String(after.reversed()))
                (before, after) = (before + after.prefix(word), String(after.dropFirst(word)))
            case .eraseWord: before.removeLast(lastWord(before))
            case .eraseLeft: before = ""
            case .eraseRight: after = ""
            case .up: recall(place - 1)
            case .down: recall(place + 1)
            case .clear: standardOutput("\u{1B}[H\u{1B}[2J")
            case .tab: completeHere()
            case .other: break
            }
        }
    }

    private func finished() -> Outcome {
        (before, after) = (before + after, "")
        draw()
        return .line(before)
    }

    /// Characters of the word that ends a text, with the space behind it.
    private func lastWord(_ text: String) -> Int {
        let spaces = text.reversed().prefix { $0 == " " }.count
        return spaces + text.dropLast(spaces).reversed().prefix { $0 != " " }.count
    }

    private func completeHere() {
        let completion = complete(before)
        guard let first = completion.candidates.first else { return standardOutput("\u{7}") }
        let shared = completion.candidates.dropFirst().reduce(first) { shared, next in
            String(zip(shared, next).prefix { $0 == $1 }.map(\.0))
        }
        if completion.candidates.count == 1 {
            before = before.dropLast(completion.replacing) + first + (first.hasSuffix("/") ? "" : " ")
        } else if shared.count > completion.replacing {
            before = before.dropLast(completion.replacing) + shared
        } else {
            let shown = completion.candidates.prefix(100).map { singleLine($0) }
            let rest = completion.candidates.count > shown.count ? ["…"] : []
            let lines = wrapped(shown + rest, separator: "  ", to: Terminal.width - 1)
            standardOutput("\r\n" + lines.joined(separator: "\r\n") + "\r\n")
        }
    }

    /// Draws prompt and line, as much of it as fits around the cursor.
    private func draw() {
        let room = max(8, Terminal.width - displayWidth(prompt) - 1)
        var shownBefore = printable(before)
        while displayWidth(shownBefore) > room { shownBefore.removeFirst() }
        var shownAfter = printable(after)
        while displayWidth(shownBefore) + displayWidth(shownAfter) > room { shownAfter.removeLast() }
        let back = displayWidth(shownAfter)
        standardOutput(
            "\r" + prompt + shownBefore + shownAfter + "\u{1B}[K" + (back > 0 ? "\u{1B}[\(back)D" : ""))
    }

    private func printable(_ text: String) -> String {
        String(text.map { $0.unicodeScalars.contains { $0.properties.generalCategory == .control } ? "·" : $0 })
    }

    // MARK: - Keys

    private enum Key {
        case text(String)
        case enter, interrupt, endOrDelete, delete, backspace, left, right, home, end, wordLeft, wordRight
        case eraseWord, eraseLeft, eraseRight, up, down, clear, tab, other
    }

    /// The next key; nil when there will be none.
    private func nextKey() -> Key? {
        guard let byte = nextByte() else { return nil }
        switch byte {
        case 0x0D, 0x0A: return .enter
        case 0x01: return .home
        case 0x02: return .left
        case 0x03: return .interrupt
        case 0x04: return .endOrDelete
        case 0x05: return .end
        case 0x06: return .right
        case 0x08, 0x7F: return .backspace
        case 0x09: return .tab
        case 0x0B: return .eraseRight
        case 0x0C: return .clear
        case 0x0E: return .down
        case 0x10: return .up
        case 0x15: return .eraseLeft
        case 0x17: return .eraseWord
        case 0x1B: return escapeSequence()
        case 0x00..<0x20: return .other
        case 0x20..<0x80: return .text(String(UnicodeScalar(byte)))
        default:
            var bytes = [byte]
            let missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1
            for _ in 0..<missing { if let next = nextByte() { bytes.append(next) } }
            return String(validating: bytes, as: UTF8.self).map(Key.text) ?? .other
        }
    }

    private func escapeSequence() -> Key {
        guard let first = nextByte(within: 50) else { return .other }
        if first == UInt8(ascii: "b") { return .wordLeft }
        if first == UInt8(ascii: "f") { return .wordRight }
        if first == 0x7F { return .eraseWord }
        guard first == UInt8(ascii: "[") || first == UInt8(ascii: "O") else { return .other }
        var parameters = ""
        while let byte = nextByte(within: 50) {
            guard (0x40...0x7E).contains(byte) else {
                parameters.unicodeScalars.append(UnicodeScalar(byte))
                continue
            }
            let isWithControl = parameters.hasSuffix(";5") || parameters.hasSuffix(";3")
            switch UnicodeScalar(byte) {
            case "A": return .up
            case "B": return .down
            case "C": return isWithControl ? .wordRight : .right
            case "D": return isWithControl ? .wordLeft : .left
            case "H": return .home
            case "F": return .end
            case "~":
                return switch parameters {
                case "1", "7": .home
                case "3": .delete
                case "4", "8": .end
                default: .other
                }
            default: return .other
            }
        }
        return .other
    }

    /// The next byte; nil at the end, on a request to stop, or after so many milliseconds.
    private func nextByte(within limit: Int32? = nil) -> UInt8? {
        while !isCancelled() {
            var waiting = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
            let ready = poll(&waiting, 1, limit ?? 200)
            if ready > 0 {
                var byte: UInt8 = 0
                return read(STDIN_FILENO, &byte, 1) == 1 ? byte : nil
            }
            if ready == 0, limit != nil { return nil }
            if ready < 0, errno != EINTR { return nil }
        }
        return nil
    }
}
