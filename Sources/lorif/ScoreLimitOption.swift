import ArgumentParser
import Engine

/// A limit of ranked scores on the command line: a number, or the name of a JSON file with one for each query.
enum ScoreLimitOption: ExpressibleByArgument {
    case number(Double)
    case file(String)

    init?(argument: String) {
        if argument.hasSuffix(".json") {
            self = .file(argument)
        } else if let number = Double(argument), Float(number).isFinite {
            self = .number(number)
        } else {
            return nil
        }
    }

    /// The limits, in single precision as scores are: a score that was printed is the limit that lets it in.
    func limits() throws -> ScoreLimits {
        switch self {
        case .number(let number): return ScoreLimits(common: Float(number))
        case .file(let path):
            let numbers = try readNumbers(fromFile: path, of: "query", example: "{\"query-1\": 0.25}")
            return ScoreLimits(byQuery: numbers.mapValues { Float($0) })
        }
    }
}
