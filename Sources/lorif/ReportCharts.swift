import Engine
import Foundation

// Drawings of the report, as SVG within the page: colours come from its style sheet, so that they follow light and dark. Each has a
// title and a description for those who do not see it, and the figures behind it are in a table beside it.

/// What each layer adds to the scores of some examples: a row for each example, a column for each layer.
///
/// Blue is a part that raises the score, orange one that lowers it; the strength is its size beside the largest of the query.
func contributionHeatMap(_ rows: [(label: String, parts: [LayerContribution])], identifier: String) -> Markup {
    guard let names = rows.first?.parts.map(\.name), !names.isEmpty else { return "" }
    let largest = rows.lazy.flatMap(\.parts).map { abs($0.score) }.max() ?? 0
    let cellWidth = min(64, max(14, 560 / Double(names.count)))
    let (cellHeight, left) = (20.0, 150.0)
    let shown = names.map { shortened($0, to: 22) }
    let longest = Double(shown.map(\.count).max() ?? 0)
    // A letter is about six wide; slanted names run to the lower left.
    let isSlanted = 6.4 * longest > cellWidth
    let bottom = isSlanted ? 14 + 4 * longest : 22
    let width = left + cellWidth * Double(names.count)
    let height = cellHeight * Double(rows.count) + bottom
    var cells: [Markup] = []
    for (row, entry) in rows.enumerated() {
        let y = cellHeight * Double(row)
        cells.append(
            "<text x=\"\(left - 8)\" y=\"\(y + 14)\" text-anchor=\"end\">\(shortened(entry.label, to: 22))</text>\n")
        for (column, part) in entry.parts.enumerated() {
            let strength = largest > 0 ? Double(abs(part.score) / largest) : 0
            cells.append(
                """
                <rect class="\(part.score < 0 ? "harmful" : "helpful")" x="\(left + cellWidth * Double(column))" y="\(y)" \
                width="\(cellWidth - 2)" height="\(cellHeight - 2)" fill-opacity="\(max(0.02, strength))">\
                <title>\(entry.label), \(part.name): \(scoreText(part.score))</title></rect>

                """)
        }
    }
    let base = cellHeight * Double(rows.count) + 14
    for (column, name) in shown.enumerated() {
        let x = left + cellWidth * (Double(column) + 0.5)
        cells.append(
            isSlanted
                ? """
                <text x="\(x + 3)" y="\(base - 3)" text-anchor="end" transform="rotate(-40 \(x + 3) \(base - 3))">\(name)</text>

                """
                : "<text x=\"\(x)\" y=\"\(base)\" text-anchor=\"middle\">\(name)</text>\n")
    }
    return drawing(
        width: width, height: height, identifier: identifier, title: "Contributions of layers",
        description:
            "What each of \(names.count) layers adds to the scores of \(rows.count) examples; blue raises, orange "
            + "lowers. The numbers are in the table that follows.", cells)
}

/// How many examples have which score, on a logarithmic scale, and where the ranked examples are.
func scoreDistribution(
    _ histogram: ScoreHistogram, helpful: [RankedExample], harmful: [RankedExample], identifier: String
) -> Markup {
    let bins = histogram.bins(atMost: 56)
    guard let first = bins.first, let last = bins.last, last.upperBound > first.lowerBound else { return "" }
    let (left, plotWidth, plotHeight, top) = (44.0, 600.0, 120.0, 20.0)
    let largest = bins.map(\.count).max() ?? 1
    let decades = max(1, Int(log10(Double(largest)).rounded(.up)))
    // One example is seen, and none is not: the scale begins at a half.
    func height(_ count: Int) -> Double {
        count == 0 ? 0 : plotHeight * (log10(Double(count)) + 0.3) / (Double(decades) + 0.3)
    }
    func x(_ score: Double) -> Double {
        left + plotWidth * (score - first.lowerBound) / (last.upperBound - first.lowerBound)
    }
    let base = top + plotHeight
    var marks: [Markup] = []
    for decade in 0...decades {
        let count = Int(pow(10, Double(decade)).rounded())
        let y = base - height(count)
        marks.append(
            """
            <line class="grid" x1="\(left)" x2="\(left + plotWidth)" y1="\(y)" y2="\(y)"/>\
            <text x="\(left - 6)" y="\(y + 4)" text-anchor="end">\(grouped(count))</text>

            """)
    }
    for bin in bins where bin.count > 0 {
        let (start, end) = (x(bin.lowerBound), x(bin.upperBound))
        marks.append(
            """
            <rect class="bar" x="\(start + 0.5)" y="\(base - height(bin.count))" width="\(max(0.5, end - start - 1))" \
            height="\(height(bin.count))"><title>\(magnitudeText(bin.lowerBound)) to \(magnitudeText(bin.upperBound)): \
            \(grouped(bin.count)) examples</title></rect>

            """)
    }
    marks.append("<line class=\"axis\" x1=\"\(left)\" x2=\"\(left + plotWidth)\" y1=\"\(base)\" y2=\"\(base)\"/>\n")
    for (examples, kind) in [(helpful, "helpful"), (harmful, "harmful")] {
        for example in examples {
            // Triangles that point down at the helpful, and up at the harmful, so that colour is not all that tells them apart.
            let middle = x(Double(example.score))
            let (tip, far) = kind == "helpful" ? (base + 2, base + 11) : (base + 11, base + 2)
            marks.append(
                """
                <path class="\(kind)" d="M\(middle) \(tip)L\(middle - 4.5) \(far)L\(middle + 4.5) \(far)Z">\
                <title>\(kind) \(example.rank): \(example.identifier), \(scoreText(example.score))</title></path>

                """)
        }
    }
    for tick in ticks(from: first.lowerBound, to: last.upperBound) {
        marks.append(
            """
            <line class="axis" x1="\(x(tick))" x2="\(x(tick))" y1="\(base)" y2="\(base + 14)"/>\
            <text x="\(x(tick))" y="\(base + 27)" text-anchor="middle">\(magnitudeText(tick))</text>

            """)
    }
    marks.append("<text x=\"0\" y=\"10\">examples</text>\n")
    marks.append("<text x=\"\(left + plotWidth)\" y=\"\(base + 42)\" text-anchor=\"end\">score</text>\n")
    return drawing(
        width: left + plotWidth + 16, height: base + 48, identifier: identifier, title: "Distribution of the scores",
        description:
            "\(grouped(histogram.exampleCount)) examples have scores from \(magnitudeText(first.lowerBound)) to "
            + "\(magnitudeText(last.upperBound)); the ranked ones are marked below the axis.", marks)
}

/// A bar from zero, to the right for a sum that helps and to the left for one that harms.
func sumBar(_ value: Double, of largest: Double) -> Markup {
    let length = largest > 0 ? 60 * abs(value) / largest : 0
    let (kind, start) = value < 0 ? ("harmful", 62 - length) : ("helpful", 62)
    return """
        <svg class="bar" width="124" height="12" aria-hidden="true"><line class="axis" x1="62" x2="62" y1="0" y2="12"/>\
        <rect class="\(kind)" x="\(start)" y="1" width="\(length)" height="10"/></svg>
        """
}

/// The eigenvalues of each group of layers, both axes logarithmic.
func spectrumChart(_ spectra: [ReportPage.Spectrum]) -> Markup {
    let positive = spectra.flatMap(\.eigenvalues).filter { $0 > 0 }
    guard let low = positive.min(), let high = positive.max(), let longest = spectra.map(\.eigenvalues.count).max()
    else { return "" }
    let (left, plotWidth, plotHeight, top) = (52.0, 430.0, 200.0, 20.0)
    let bottomDecade = log10(low).rounded(.down)
    let topDecade = max(bottomDecade + 1, log10(high).rounded(.up))
    func y(_ value: Double) -> Double { top + plotHeight * (topDecade - log10(value)) / (topDecade - bottomDecade) }
    func x(_ place: Int) -> Double { left + plotWidth * log(Double(place)) / log(Double(max(2, longest))) }
    var marks: [Markup] = []
    let decades = Int(topDecade - bottomDecade)
    for step in stride(from: 0, through: decades, by: max(1, (decades + 5) / 6)) {
        let value = pow(10, topDecade - Double(step))
        marks.append(
            """
            <line class="grid" x1="\(left)" x2="\(left + plotWidth)" y1="\(y(value))" y2="\(y(value))"/>\
            <text x="\(left - 6)" y="\(y(value) + 4)" text-anchor="end">\(String(format: "%g", value))</text>

            """)
    }
    var place = 1
    while place <= longest {
        marks.append(
            "<text x=\"\(x(place))\" y=\"\(top + plotHeight + 18)\" text-anchor=\"middle\">\(grouped(place))</text>\n")
        place *= longest > 1000 ? 10 : 4
    }
    let hasLegend = spectra.count <= lineStyleCount
    for (index, spectrum) in spectra.enumerated() {
        let points = spectrum.eigenvalues.enumerated().filter { $1 > 0 }
            .map { (offset, value) -> Markup in "\(x(offset + 1)),\(y(value)) " }
        let kind: Markup = hasLegend ? "line\(index)" : "many"
        marks.append(
            "<polyline class=\"line \(kind)\" points=\"\(points)\"><title>\(spectrum.figures.title)</title></polyline>\n"
        )
        guard hasLegend else { continue }
        let line = top + 8 + 22 * Double(index)
        marks.append(
            """
            <line class="line \(kind)" x1="\(left + plotWidth + 16)" x2="\(left + plotWidth + 44)" y1="\(line)" y2="\(line)"/>\
            <text x="\(left + plotWidth + 50)" y="\(line + 4)">\(shortened(spectrum.figures.title, to: 24))</text>

            """)
    }
    marks.append("<text x=\"\(left - 6)\" y=\"10\" text-anchor=\"end\">s²</text>\n")
    marks.append(
        """
        <text x="\(left + plotWidth)" y="\(top + plotHeight + 34)" text-anchor="end">place of the eigenvalue</text>

        """)
    return drawing(
        width: left + plotWidth + (hasLegend ? 210 : 16), height: top + plotHeight + 40, identifier: "spectrum-drawing",
        title: "Spectrum of the curvature",
        description:
            "Eigenvalues from \(magnitudeText(high)) down to \(magnitudeText(low)) of \(spectra.count) groups of "
            + "layers; the table that follows says what each captured.", marks)
}

/// Lines that the style sheet tells apart.
private let lineStyleCount = 8

/// Some four to eight round numbers between two others.
private func ticks(from low: Double, to high: Double) -> [Double] {
    let rough = (high - low) / 8
    let power = pow(10, log10(rough).rounded(.down))
    let step = power * ([1, 2, 5, 10].first { $0 * power >= rough } ?? 10)
    guard step > 0, step.isFinite else { return [] }
    return stride(from: (low / step).rounded(.up), through: (high / step).rounded(.down), by: 1)
        // Not the zero that has a sign.
        .map { $0 == 0 ? 0 : $0 * step }
}

/// A text cut to so many characters, in the middle, where names of layers differ least.
func shortened(_ text: String, to count: Int) -> String {
    let text = singleLine(text)
    guard text.count > count else { return text }
    return text.prefix((count - 1) / 2) + "…" + text.suffix(count - 1 - (count - 1) / 2)
}

private func drawing(
    width: Double, height: Double, identifier: String, title: String, description: String, _ content: [Markup]
) -> Markup {
    """
    <div class="scroll" role="region" aria-label="\(title)" tabindex="0">\
    <svg role="img" width="\(width)" height="\(height)" viewBox="0 0 \(width) \(height)" aria-labelledby="\(identifier)-t" \
    aria-describedby="\(identifier)-d">
    <title id="\(identifier)-t">\(title)</title><desc id="\(identifier)-d">\(description)</desc>
    \(content)</svg></div>

    """
}
