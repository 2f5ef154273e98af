import Checksum
import Engine
import Foundation
import Schema
import Store

/// What Tab offers in a session.
struct ShellCompletion {
    private let session: ShellSession

    init(_ session: ShellSession) {
        self.session = session
    }

    /// Completions of a line up to the cursor.
    func complete(_ line: String) -> LineEditor.Completion {
        // Words that quotations hold together are left alone.
        guard !line.contains(where: { "'\"\\".contains($0) }) else {
            return LineEditor.Completion(replacing: 0, candidates: [])
        }
        let words = line.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
        let last = line.hasSuffix(" ") ? "" : words.last ?? ""
        let earlier = last.isEmpty ? words : Array(words.dropLast())
        let candidates = offers(after: earlier, prefix: last).filter { $0.hasPrefix(last) }
        return LineEditor.Completion(
            replacing: last.count, candidates: Array(Set(candidates)).sorted().filter { shellQuoted($0) == $0 })
    }

    private func offers(after words: [String], prefix: String) -> [String] {
        guard let command = words.first else { return ShellSession.commands.map(\.name) }
        switch command {
        case "query", "id", "explain":
            if prefix.hasPrefix("--") { return ShellQuestion.settings.map { "--\($0)" } }
            if let option = words.last, option.hasPrefix("--") {
                return values(of: String(option.dropFirst(2)), prefix: prefix)
            }
            if command == "explain", words.count == 1 { return ["analyze", "id", "query"] }
            return words.contains("id") ? identifiers(prefix) : files(prefix)
        case "set": return words.count == 1 ? ShellQuestion.settings : values(of: words[1], prefix: prefix)
        case "unset": return session.settings.map(\.name)
        case "show": return identifiers(prefix)
        case "info": return ["basis", "curvature", "layers", "segments"]
        default: return []
        }
    }

    private func values(of option: String, prefix: String) -> [String] {
        switch option {
        case "method": Engine.Method.allCases.map(\.rawValue)
        case "guarantee": Guarantee.allCases.map(\.rawValue)
        case "aggregate": QueryAggregation.allCases.map(\.rawValue)
        case "format": AnswerFormat.allCases.map(\.rawValue)
        case "layers": session.database.snapshot.schema.layers.map(\.name)
        case "curvature": session.database.snapshot.curvatures.map { String($0.digest.description.prefix(12)) }
        case "group-by", "aggregate-by", "where": (try? session.database.metadataFieldNames()) ?? []
        case "per-layer": ["off", "on"]
        case "among", "metadata", "output": files(prefix)
        default: []
        }
    }

    private func identifiers(_ prefix: String) -> [String] {
        (try? session.database.identifiers(startingWith: prefix, atMost: 200)) ?? []
    }

    private func files(_ prefix: String) -> [String] {
        let folder = prefix.lastIndex(of: "/").map { String(prefix[...$0]) } ?? ""
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.isEmpty ? "." : folder)) ?? []
        return names.filter { !$0.hasPrefix(".") }.map { name in
            var isFolder: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: folder + name, isDirectory: &isFolder)
            return folder + name + (isFolder.boolValue ? "/" : "")
        }
    }
}
