import ArgumentParser
import Engine

/// How answers are written.
enum AnswerFormat: String, ExpressibleByArgument, CaseIterable {
    case text, jsonl, csv, markdown, npy, safetensors

    /// Whether it holds every score, and no ranked examples.
    var isMatrix: Bool { self == .npy || self == .safetensors }

    /// The format that the extension of a file's name stands for.
    init?(extensionOf path: String) {
        let name = path.split(separator: "/").last ?? ""
        guard let dot = name.lastIndex(of: ".") else { return nil }
        switch name[name.index(after: dot)...] {
        case "txt": self = .text
        case "jsonl": self = .jsonl
        case "csv": self = .csv
        case "md": self = .markdown
        case "npy": self = .npy
        case "safetensors": self = .safetensors
        default: return nil
        }
    }
}

/// Where answers go, and as what: `--format` and `--output`.
struct AnswerDestination: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Ranked examples as text, jsonl, csv or markdown, or every score as npy or safetensors; text unless the name of --output "
                + "says more.", valueName: "format"))
    var format: AnswerFormat?
    @Option(
        help: ArgumentHelp(
            "Write the answer here instead of standard output; a name that ends in .npy or .safetensors gets every score. May be repeated.",
            valueName: "file"))
    var output: [String] = []
    @Option(
        help: ArgumentHelp(
            "Also write what the answer rests on, as JSON: method, dampings, curvature, rows, bytes, seconds, and for each query what "
                + "shows that the list is complete.", valueName: "file"))
    var summary: String?

    func validate() throws {
        for path in output {
            if path == "-" { throw ValidationError("--output -: standard output goes without --output") }
            let name = path.split(separator: "/").last ?? ""
            if format == nil, name.contains("."), AnswerFormat(extensionOf: path) == nil {
                throw ValidationError(
                    "--output \(path): expected a name that ends in .txt, .jsonl, .csv, .md, .npy or .safetensors, "
                        + "or --format")
            }
        }
        let matrices = output.filter { AnswerFormat(extensionOf: $0)?.isMatrix == true }
        guard matrices.count <= 1 else {
            throw ValidationError(
                "--output: every score goes to one file, not to \(matrices.joined(separator: " and "))")
        }
        guard let format, format.isMatrix else { return }
        guard output.count == 1, AnswerFormat(extensionOf: output[0]) == format else {
            throw ValidationError(
                "--format \(format.rawValue) needs --output with a file that ends in .\(format.rawValue)")
        }
    }

    /// The file of every score.
    var scoresPath: String? { output.first { AnswerFormat(extensionOf: $0)?.isMatrix == true } }

    /// Files of ranked examples.
    private var answerPaths: [String] { output.filter { $0 != scoresPath } }

    /// Whether ranked examples are wanted anywhere.
    var listsAnswers: Bool { format?.isMatrix != true }

    private var printsAnswers: Bool { listsAnswers && answerPaths.isEmpty }

    /// Whether people read standard output.
    var printsText: Bool { printsAnswers && (format ?? .text) == .text }

    /// Writes the answer wherever it is wanted.
    func write(_ result: QueryResult, elapsedSeconds: Double) throws {
        if let summary {
            try writeText(try jsonText(AnswerSummary(result, elapsedSeconds: elapsedSeconds)), toFile: summary)
        }
        for path in answerPaths {
            let text = try text(
                result, as: format ?? AnswerFormat(extensionOf: path) ?? .text, elapsedSeconds: elapsedSeconds,
                width: 120, style: .plain)
            try writeText(text, toFile: path)
        }
        if printsAnswers {
            standardOutput(
                try text(
                    result, as: format ?? .text, elapsedSeconds: elapsedSeconds, width: Terminal.width,
                    style: .ofStandardOutput))
        }
    }

    private func text(
        _ result: QueryResult, as format: AnswerFormat, elapsedSeconds: Double, width: Int, style: TextStyle
    ) throws -> String {
        switch format {
        case .text:
            AnswerText(result, elapsedSeconds: elapsedSeconds, width: width, scoresPath: scoresPath, style: style).text
        case .markdown: answerMarkdown(result, elapsedSeconds: elapsedSeconds)
        case .jsonl: answerLines(result)
        case .csv: answerCSV(result)
        case .npy, .safetensors: preconditionFailure("scores are written by the engine")
        }
    }
}
