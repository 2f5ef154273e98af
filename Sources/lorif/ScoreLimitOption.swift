import ArgumentParser
import Engine
import Foundation

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
            let numbers: [String: Double]
            do {
                numbers = try JSONDecoder().decode([String: Double].self, from: Data(contentsOf: URL(filePath: path)))
            } catch let error as DecodingError {
                throw ValidationError(
                    "\(path): expected a JSON object with a number for each query, as {\"query-1\": 0.25}: \(Self.reason(error))"
                )
            } catch {
                throw ValidationError("\(path) cannot be read: \(error.localizedDescription)")
            }
            return ScoreLimits(byQuery: numbers.mapValues { Float($0) })
        }
    }

    private static func reason(_ error: DecodingError) -> String {
        switch error {
        case .dataCorrupted(let context), .keyNotFound(_, let context), .typeMismatch(_, let context),
            .valueNotFound(_, let context):
            let place = context.codingPath.map(\.stringValue).joined(separator: ".")
            return place.isEmpty ? context.debugDescription : "at '\(place)': \(context.debugDescription)"
        @unknown default: return String(describing: error)
        }
    }
}
