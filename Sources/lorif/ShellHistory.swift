import Foundation
import Glibc

/// The lines of earlier sessions: `lorif/history` in `$XDG_STATE_HOME`, or in `~/.local/state`. Readable by its owner only.
///
/// A history that cannot be read or written is no reason to stop: then lines are remembered for the session only.
struct ShellHistory {
    private static let limit = 1000

    private let path: String
    private(set) var lines: [String]

    init() {
        let environment = ProcessInfo.processInfo.environment
        let state = environment["XDG_STATE_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
        path = (state ?? NSHomeDirectory() + "/.local/state") + "/lorif/history"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        lines = text.split(separator: "\n").suffix(Self.limit).map(String.init)
    }

    /// Remembers a line; not one that begins with a space, and not the last one again.
    mutating func add(_ line: String) {
        guard !line.isEmpty, !line.hasPrefix(" "), line != lines.last else { return }
        lines.append(line)
        lines = lines.suffix(Self.limit)
        let folder = (path as NSString).deletingLastPathComponent
        try? FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        _ = FileManager.default.createFile(
            atPath: path, contents: Data((lines.joined(separator: "\n") + "\n").utf8),
            attributes: [.posixPermissions: 0o600])
    }
}
