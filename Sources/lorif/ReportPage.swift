import Checksum
import Engine
import Foundation
import Schema
import Store

/// One page with everything about the answers to some queries.
struct ReportPage {
    /// The eigenvalues of one group of layers, and what they captured.
    struct Spectrum {
        let figures: FittedGroup
        let eigenvalues: [Double]
    }

    let result: QueryResult
    let snapshot: Snapshot
    /// The file of queries, if there is one.
    let queriesName: String?
    let groupField: String?
    let spectra: [Spectrum]
    let elapsedSeconds: Double

    /// Columns of a heat map; with more layers the weaker ones are added up in the last.
    private static let heatMapColumns = 64
    /// Characters of a text that are shown at once.
    private static let shownCharacters = 320

    /// The whole file.
    var html: String {
        let title =
            "\(snapshot.path.split(separator: "/").last.map(String.init) ?? snapshot.path): "
            + (result.method.needsQueries ? "what helped, what harmed" : "self-influence")
        let sections: [Markup] = result.answers.enumerated().map { section($1, number: $0 + 1) }
        let page: Markup = """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta name="color-scheme" content="light dark">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
            <meta name="generator" content="lorif \(lorifRelease)">
            <title>\(title)</title>
            <style>
            \(Markup(stringLiteral: reportStyle))</style>
            </head>
            <body>
            <header>
            <h1>\(title)</h1>
            \(introduction)\(contents)</header>
            <main>
            \(sections)\(curvatureSection)\(storeSection)</main>
            <footer><p>\(answerFooter(result, elapsedSeconds: elapsedSeconds).joined(separator: " · "))</p>
            <p>lorif \(lorifRelease)</p></footer>
            </body>
            </html>

            """
        return page.source
    }

    // MARK: - Above

    private var introduction: Markup {
        let queries =
            result.method.needsQueries
            ? "\(grouped(result.answers.count)) \(result.answers.count == 1 ? "answer" : "answers")"
                + (queriesName.map { " to the queries of \($0)" } ?? " about stored examples")
            : "The examples by their influence on themselves"
        let notes: [Markup] = result.warnings.map { "<li>\($0)</li>\n" }
        let sign: Markup =
            result.method.needsQueries
            ? """
            <p>A positive score, in <span class="helpful">blue</span>, means that training on the example lowers the query's loss; a negative one, in \
            <span class="harmful">orange</span>, that it raises it. The share is that of |score| among all \(grouped(result.rowCount)) examples scored.</p>

            """ : ""
        return """
            <p>\(queries), by <code>\(result.method.rawValue)</code> over \(grouped(result.rowCount)) examples and \
            \(grouped(result.layerNames.count)) layers.</p>
            \(sign)\(notes.isEmpty ? "" : "<ul class=\"notes\" aria-label=\"Notes\">\n\(notes)</ul>\n")
            """
    }

    private var contents: Markup {
        var entries: [Markup] = result.answers.enumerated().map { index, answer in
            let text = exampleText(answer.metadata).map { truncated(singleLine($0), to: 46) }
            return """
                <li><a href="#answer-\(index + 1)">\(heading(answer))</a> <span class="quiet">\(Markup.isolated(text ?? ""))</span></li>

                """
        }
        if !spectra.isEmpty { entries.append("<li><a href=\"#curvature\">Curvature</a></li>\n") }
        entries.append("<li><a href=\"#store\">Store</a></li>\n")
        return "<nav aria-label=\"Contents\"><ol>\n\(entries)</ol></nav>\n"
    }

    private func heading(_ answer: QueryAnswer) -> Markup {
        let damping = result.dampings.count > 1 ? ", \(dampingText(result.dampings[answer.dampingIndex]))" : ""
        return "\(Markup.isolated(answer.identifier))\(damping)"
    }

    // MARK: - One answer

    private func section(_ answer: QueryAnswer, number: Int) -> Markup {
        var body: Markup = ""
        if result.method.needsQueries {
            let source = sourceText(answer.metadata)
            if !source.isEmpty { body += "<p class=\"source\">\(Markup.isolated(source))</p>\n" }
            if let text = exampleText(answer.metadata) { body += "<blockquote dir=\"auto\">\(text)</blockquote>\n" }
        }
        let names = result.method.needsQueries ? ("helpful", "harmful") : ("highest", "lowest")
        let lists = [(names.0, "▲", answer.top), (names.1, "▼", answer.bottom)]
        let rows = lists.flatMap { name, sign, examples in
            examples.map { exampleRow($0, of: answer, name: "\(sign) \(name)") }
        }
        if !rows.isEmpty {
            body += markupTable(
                caption: result.method.needsQueries
                    ? "Examples that helped most and harmed most"
                    : "Examples with the highest and lowest self-influence",
                header: ["", "rank", "score", "share", "id", "source", "text"], rows: rows, right: [1, 2, 3],
                label: "Ranked examples", kind: " class=\"ranked\"")
        }
        body += contributions(answer, number: number)
        if let distribution = answer.distribution {
            body += """
                <figure>
                \(scoreDistribution(distribution, helpful: answer.top, harmful: answer.bottom, identifier: "distribution-\(number)"))\
                <figcaption>Scores of all \(grouped(distribution.exampleCount)) examples; <span class="helpful">▲ \(names.0)</span> and \
                <span class="harmful">▼ \(names.1)</span> of the table are marked below the axis.</figcaption>
                </figure>

                """
        }
        body += groups(answer)
        return """
            <section id="answer-\(number)" aria-labelledby="heading-\(number)">
            <h2 id="heading-\(number)">\(heading(answer))</h2>
            \(body)</section>

            """
    }

    private func exampleRow(_ example: RankedExample, of answer: QueryAnswer, name: String) -> [Markup] {
        let kind: Markup = example.score < 0 ? "harmful" : "helpful"
        return [
            "<span class=\"\(kind)\">\(name)</span>", "\(example.rank)",
            "<span class=\"\(kind)\">\(scoreText(example.score))</span>", "\(percentText(answer.share(of: example)))",
            "<code>\(Markup.isolated(example.identifier))</code>", Markup.isolated(sourceText(example.metadata)),
            excerpt(exampleText(example.metadata) ?? ""),
        ]
    }

    /// A text, the rest of a long one behind a click.
    private func excerpt(_ text: String) -> Markup {
        guard text.count > Self.shownCharacters else { return "<div dir=\"auto\">\(text)</div>" }
        return """
            <details dir="auto"><summary>\(String(text.prefix(Self.shownCharacters)))…</summary>\
            …\(String(text.dropFirst(Self.shownCharacters)))</details>
            """
    }

    private func contributions(_ answer: QueryAnswer, number: Int) -> Markup {
        let examples = answer.top + answer.bottom
        guard let first = examples.first, !first.contributions.isEmpty else { return "" }
        let parts = strongestParts(examples.map(\.contributions))
        let rows = zip(examples, parts).map { (label: $0.identifier, parts: $1) }
        let table = markupTable(
            caption: "What each layer adds to the score", header: ["id", "score"] + (parts.first?.map(\.name) ?? []),
            rows: zip(examples, parts).map { example, parts in
                [Markup.isolated(example.identifier), "\(scoreText(example.score))"]
                    + parts.map { "\(scoreText($0.score))" }
            }, right: Set(1...(1 + (parts.first?.count ?? 0))), label: "Contributions of layers")
        return """
            <figure>
            \(contributionHeatMap(rows, identifier: "layers-\(number)"))\
            <figcaption>What each layer adds to the scores: <span class="helpful">blue raises</span>, <span class="harmful">orange lowers</span>, \
            and the fullest colour is the largest part.</figcaption>
            <details class="numbers"><summary>The numbers</summary>
            \(table)</details>
            </figure>

            """
    }

    /// Parts of examples in the same columns, at most as many as a heat map has: the weakest layers are added up in the last.
    private func strongestParts(_ parts: [[LayerContribution]]) -> [[LayerContribution]] {
        guard let names = parts.first?.map(\.name), names.count > Self.heatMapColumns else { return parts }
        let strength = names.indices.map { column in parts.reduce(0) { $0 + abs($1[column].score) } }
        let strongest = Set(
            names.indices.sorted { strength[$0] > strength[$1] }.prefix(Self.heatMapColumns - 1))
        return parts.map { row in
            let rest = row.indices.filter { !strongest.contains($0) }.reduce(0) { $0 + row[$1].score }
            return row.indices.filter { strongest.contains($0) }.map { row[$0] } + [
                LayerContribution(name: "\(names.count - strongest.count) others", score: rest)
            ]
        }
    }

    private func groups(_ answer: QueryAnswer) -> Markup {
        guard let field = groupField, !answer.groups.isEmpty else { return "" }
        // Those that tell most, if there are many: the largest sums on both sides.
        let all = answer.groups
        let shown = all.count <= 24 ? all : Array(all.prefix(12) + all.suffix(12))
        let largest = shown.map { abs($0.sum) }.max() ?? 0
        let choice = shown.count < all.count ? ", the 12 highest and the 12 lowest of \(grouped(all.count)) sums" : ""
        return markupTable(
            caption: "Scores by \(Markup.isolated(field))\(choice)",
            header: [field, "examples", "sum", "", "mean", "highest", "in the top"],
            rows: shown.map { group in
                [
                    Markup.isolated(group.name), "\(grouped(group.exampleCount))", "\(scoreText(Float(group.sum)))",
                    sumBar(group.sum, of: largest), "\(scoreText(Float(group.mean)))", "\(scoreText(group.highest))",
                    "\(grouped(group.topCount))",
                ]
            }, right: [1, 2, 4, 5, 6], label: "Scores by \(field)")
    }

    // MARK: - Below

    private var curvatureSection: Markup {
        guard !spectra.isEmpty, let curvature = result.curvature, let scope = result.scope else { return "" }
        let damping = result.dampings.map(dampingText).joined(separator: "; ")
        return """
            <section id="curvature" aria-labelledby="curvature-heading">
            <h2 id="curvature-heading">Curvature</h2>
            <p>\(scope), fitted on \(grouped(result.curvatureRowCount ?? 0)) examples: <code>\(curvature.description)</code>. \
            Damping: \(damping).</p>
            <figure>
            \(spectrumChart(spectra))<figcaption>Eigenvalues s² of H = Σ g gᵀ that were kept; directions outside count by the damping alone.</figcaption>
            </figure>
            \(markupTable(
                caption: "What each group of layers captured",
                header: ["layers", "D", "rank", "energy", "tr(H)", "largest s²", "stable rank"],
                rows: spectra.map { spectrum in
                    let figures = spectrum.figures
                    return [
                        Markup.isolated(figures.title), "\(grouped(figures.gradientLength))", "\(grouped(figures.rank))",
                        "\(percentText(figures.capturedEnergy))", "\(magnitudeText(figures.trace))",
                        figures.rank > 0 ? "\(magnitudeText(figures.largestEigenvalue))" : "–",
                        "\(decimal(figures.stableRank, 1))",
                    ]
                }, right: [1, 2, 3, 4, 5, 6], label: "Curvature by layers"))</section>

            """
    }

    private var storeSection: Markup {
        let byteCount = snapshot.segments.reduce(0) { $0 + $1.identity.fileLength }
        var rows: [[Markup]] = [
            ["path", Markup.isolated(snapshot.path)], ["identity", "<code>\(snapshot.identity.description)</code>"],
            ["generation", "\(String(snapshot.generation))"],
            [
                "examples",
                "\(grouped(snapshot.rowCount))\(snapshot.deletedRowCount > 0 ? ", \(grouped(snapshot.deletedRowCount)) deleted" : "")",
            ],
            ["layers", "\(grouped(snapshot.schema.layers.count)), in \(snapshot.schema.encoding.name)"],
            ["segments", "\(grouped(snapshot.segments.count)), \(byteText(byteCount))"],
        ]
        if let name = snapshot.name { rows.insert(["snapshot", Markup.isolated(name)], at: 1) }
        if snapshot.rowCount > 0 {
            rows.append([
                "bytes per example",
                "\(grouped(byteCount / snapshot.rowCount)); full matrices in f16 take \(grouped(2 * snapshot.schema.gradientLength))",
            ])
        }
        if let basis = snapshot.schema.basis { rows.append(["whitened by", "<code>\(basis.description)</code>"]) }
        return """
            <section id="store" aria-labelledby="store-heading">
            <h2 id="store-heading">Store</h2>
            \(markupTable(caption: "What the store holds", header: ["what", "how much"], rows: rows, right: [], label: "The store"))</section>

            """
    }
}
