import Foundation

/// The numbers by name of a JSON file; `example` shows what it looks like.
func readNumbers(fromFile path: String, of what: String, example: String) throws -> [String: Double] {
    do {
        return try JSONDecoder().decode([String: Double].self, from: Data(contentsOf: URL(filePath: path)))
    } catch let error as DecodingError {
        throw CommandFailure(
            code: .inputRefused,
            message: "\(path): expected a JSON object with a number for each \(what), as \(example): \(reason(error))")
    } catch {
        throw CommandFailure(code: .inputRefused, message: "\(path) cannot be read: \(error.localizedDescription)")
    }
}

private func reason(_ error: DecodingError) -> String {
    switch error {
    case .dataCorrupted(let context), .keyNotFound(_, let context), .typeMismatch(_, let context),
        .valueNotFound(_, let context):
        let place = context.codingPath.map(\.stringValue).joined(separator: ".")
        return place.isEmpty ? context.debugDescription : "at '\(place)': \(context.debugDescription)"
    @unknown default: return String(describing: error)
    }
}
