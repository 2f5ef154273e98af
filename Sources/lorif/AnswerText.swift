import Engine
import Schema

/// The answers for reading: per query its text, then helpful and harmful examples, then how they were computed.
struct AnswerText {
    private let result: QueryResult
    private let elapsedSeconds: Double
    private let width: Int
    private let scoresPath: String?
    private let style: TextStyle

    /// An answer in lines of at most `width` columns.
    init(_ result: QueryResult, elapsedSeconds: Double, width: Int, scoresPath: String?, style: TextStyle) {
        self.result = result
        self.elapsedSeconds = elapsedSeconds
        self.width = max(width, 20)
        self.scoresPath = scoresPath
        self.style = style
    }

    /// All of it.
    var text: String {
        var text = ""
        var heading = -1
        for answer in result.answers {
            if result.dampings.count > 1, answer.dampingIndex != heading {
                heading = answer.dampingIndex
                text += style.bold("— \(dampingText(result.dampings[heading])) —") + "\n\n"
            }
            if result.method.needsQueries {
                text += "query " + style.bold(truncated(singleLine(answer.identifier), to: width - 6)) + "\n"
                if let query = exampleText(answer.metadata) {
                    text += truncated("  “\(singleLine(query))”", to: width) + "\n"
                }
            }
            let lists = rankedLists(answer)
            let groups = answer.groups.isEmpty ? "" : groupRows(answer.groups)
            text += lists + groups
            if !lists.isEmpty || !groups.isEmpty { text += "\n" }
        }
        for line in wrapped(answerFooter(result, elapsedSeconds: elapsedSeconds), separator: " · ", to: width) {
            text += style.dim(line) + "\n"
        }
        if let scoresPath {
            let pairs = "\(grouped(result.plan.queryCount)) × \(grouped(result.rowCount)) pairs"
            text += "scores of \(pairs) in \(scoresPath)\n"
        }
        return text
    }

    /// Both lists in the same columns, each under its own heading; what does not fit in the width is left out, text first.
    private func rankedLists(_ answer: QueryAnswer) -> String {
        let names = result.method.needsQueries ? ("helpful", "harmful") : ("highest", "lowest")
        let lists = [(names.0, answer.top, style.green), (names.1, answer.bottom, style.red)].filter { !$0.1.isEmpty }
        let hasSources = width >= 72 && lists.contains { $0.1.contains { !sourceText($0.metadata).isEmpty } }
        var rows: [[String]] = []
        for (name, examples, _) in lists {
            rows.append(["", name, "score", "share", "id"] + (hasSources ? ["source"] : []))
            for example in examples {
                rows.append(
                    [
                        "", "\(example.rank)", scoreText(example.score), percentText(answer.share(of: example)),
                        truncated(
                            singleLine(example.identifier), to: width < 60 ? max(8, width - 29) : min(40, width / 3)),
                    ] + (hasSources ? [truncated(sourceText(example.metadata), to: 20)] : []))
            }
        }
        let lines = table(rows, right: [1, 2, 3]).split(separator: "\n").map(String.init)
        let used = lines.map(displayWidth).max() ?? 0
        var text = ""
        var line = lines.makeIterator()
        for (_, examples, colour) in lists {
            text += colour(line.next() ?? "") + "\n"
            for example in examples {
                let row = truncated(line.next() ?? "", to: width)
                if let snippet = exampleText(example.metadata), width - used - 2 >= 16 {
                    text += padded(row, to: used) + "  " + truncated(singleLine(snippet), to: width - used - 2) + "\n"
                } else {
                    text += row + "\n"
                }
                text += contributionLine(example.contributions)
            }
        }
        return text
    }

    /// The groups' sums, those with the largest first.
    private func groupRows(_ groups: [GroupScore]) -> String {
        let shown = groups.prefix(20)
        let cells =
            [["", "group", "examples", "sum", "mean", "highest", "in top"]]
            + shown.map { group in
                [
                    "", truncated(singleLine(group.name), to: 40), grouped(group.exampleCount),
                    scoreText(Float(group.sum)), scoreText(Float(group.mean)), scoreText(group.highest),
                    grouped(group.topCount),
                ]
            }
        let rest =
            groups.count > shown.count ? "  … \(grouped(groups.count - shown.count)) more; --format csv has all\n" : ""
        return table(cells, right: [2, 3, 4, 5, 6]) + rest
    }

    /// What the layers add to a score, the largest parts first.
    private func contributionLine(_ contributions: [LayerContribution]) -> String {
        guard !contributions.isEmpty else { return "" }
        let parts = contributions.sorted { abs($0.score) > abs($1.score) }
            .map { "\(truncated(singleLine($0.name), to: 32)) \(scoreText($0.score))" }
        return style.dim(truncated("           = " + parts.joined(separator: ", "), to: width)) + "\n"
    }
}
