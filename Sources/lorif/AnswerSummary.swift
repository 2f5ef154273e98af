import Checksum
import Engine

/// What an answer rests on, for programs (Formats/answers.md).
struct AnswerSummary: Encodable {
    let method, aggregate, guarantee, kernel, form: String
    let dampings: [Damping]
    let basis, curvature, scope: String?
    let curvatureRows: Int?
    let generation: UInt64
    let layers: [String]
    let rows, unreadRows, scoredAgain, bytes, scans: Int
    let seconds: Double
    let queries: [Query]
    let notes: [String]

    /// A damping as it was asked for, and the λ of each layer, or the one of global curvature.
    struct Damping: Encodable {
        let relative: Double?
        let lambdas: [Double]
    }

    /// A query, with one damping if there are several.
    struct Query: Encodable {
        let query: String
        let damping: Double?
        let total: Double
        let top, bottom: List
    }

    /// A ranked list: how long it is, and what shows that nothing better is missing.
    struct List: Encodable {
        let count: Int
        let last, unrankedBound: Float?

        init(_ examples: [RankedExample], bound: Float?) {
            count = examples.count
            last = examples.last?.score
            unrankedBound = bound
        }
    }

    init(_ result: QueryResult, elapsedSeconds: Double) {
        method = result.method.rawValue
        aggregate = result.aggregation.rawValue
        guarantee = result.guarantee.rawValue
        kernel = result.plan.kernel.rawValue
        form = result.plan.form.rawValue
        dampings = result.dampings.map { Damping(relative: $0.relative, lambdas: $0.lambdas) }
        basis = result.basis?.description
        curvature = result.curvature?.description
        scope = result.scope
        curvatureRows = result.curvatureRowCount
        generation = result.generation
        layers = result.layerNames
        rows = result.rowCount
        unreadRows = result.unreadRowCount
        scoredAgain = result.meter.refinedRowCount
        bytes = result.meter.byteCount
        scans = result.plan.scanCount
        seconds = elapsedSeconds
        queries = result.answers.map { answer in
            Query(
                query: answer.identifier,
                damping: result.dampings.count > 1 ? result.dampings[answer.dampingIndex].value : nil,
                total: answer.totalMagnitude,
                top: List(answer.top, bound: answer.unrankedRange?.upperBound),
                bottom: List(answer.bottom, bound: answer.unrankedRange?.lowerBound))
        }
        notes = result.warnings
    }
}
