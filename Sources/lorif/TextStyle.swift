import Foundation
import Glibc

/// Colours of a terminal, or none.
struct TextStyle {
    /// Whether text is marked at all.
    let isColoured: Bool

    /// For files and pipes.
    static let plain = TextStyle(isColoured: false)

    /// For what is printed: coloured in a terminal, unless `NO_COLOR` (https://no-color.org) or `TERM=dumb` says no.
    static var ofStandardOutput: TextStyle {
        let environment = ProcessInfo.processInfo.environment
        let isWelcome = (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
        return TextStyle(isColoured: isWelcome && Terminal.isTerminal(STDOUT_FILENO))
    }

    func bold(_ text: String) -> String { marked(text, "1") }
    func dim(_ text: String) -> String { marked(text, "2") }
    func green(_ text: String) -> String { marked(text, "32") }
    func yellow(_ text: String) -> String { marked(text, "33") }
    func red(_ text: String) -> String { marked(text, "31") }

    private func marked(_ text: String, _ code: String) -> String {
        isColoured && !text.isEmpty ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }
}
