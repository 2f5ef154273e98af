public import ArgumentParser
public import Curvature
public import Engine
import Foundation
public import Schema

extension Encoding: ExpressibleByArgument {
    /// The encoding of that name.
    public init?(argument: String) { self.init(name: argument) }
    /// What help texts show.
    public var defaultValueDescription: String { name }
    /// Every name.
    public static var allValueStrings: [String] { allCases.map(\.name) }
    /// What each one means, for help texts.
    public static var allValueDescriptions: [String: String] {
        [
            "f32": "single precision", "f16": "half precision, one scale per vector", "bf16": "bfloat16",
            "int8": "8-bit codes, one scale per vector", "q4": "4-bit Gaussian codes, one scale per vector",
            "q3": "3-bit", "q2": "2-bit", "q1": "signs",
        ]
    }
}

extension Engine.Method: ExpressibleByArgument {}

extension FitAlgorithm: ExpressibleByArgument {}

extension RankChoice: ExpressibleByArgument {
    /// A rank, or patterns with ranks.
    public init?(argument: String) { self.init(parsing: argument) }
}

extension DuplicatePolicy: ExpressibleByArgument {}

extension QueryAggregation: ExpressibleByArgument {}

extension Guarantee: ExpressibleByArgument {}

extension ReadPath: ExpressibleByArgument {}

extension Plan.Kernel: ExpressibleByArgument {}

extension Atomicity: ExpressibleByArgument {}

/// Numbers on the command line: `0.1` or `0.1,1,10`.
struct NumberList: ExpressibleByArgument {
    let values: [Double]

    init?(argument: String) {
        let words = argument.split(separator: ",", omittingEmptySubsequences: false)
        let numbers = words.compactMap { Double($0) }
        guard numbers.count == words.count, Set(numbers).count == numbers.count, numbers.count <= 64 else { return nil }
        values = numbers
    }
}

/// A time on the command line: `5s`, `200ms`, `2min`; a bare number is seconds.
struct TimeLimit: ExpressibleByArgument {
    let seconds: Double

    init?(argument: String) {
        for (suffix, scale) in [("ms", 1e-3), ("min", 60.0), ("s", 1), ("", 1)] where argument.hasSuffix(suffix) {
            guard let number = Double(argument.dropLast(suffix.count)), number > 0, number * scale < 1e9 else {
                return nil
            }
            seconds = number * scale
            return
        }
        return nil
    }
}

/// A number of bytes on the command line: `1073741824`, `512MiB`, `4GiB`, `2GB`.
struct ByteCount: ExpressibleByArgument {
    let value: Int

    init(_ value: Int) { self.value = value }

    init?(argument: String) {
        let units = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1000), ("MB", 1_000_000),
            ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1), ("", 1),
        ]
        for (suffix, scale) in units where argument.hasSuffix(suffix) {
            guard let number = Double(argument.dropLast(suffix.count)), number > 0, number * Double(scale) < 1e18 else {
                return nil
            }
            value = Int(number * Double(scale))
            return
        }
        return nil
    }

    var defaultValueDescription: String { byteText(value).replacingOccurrences(of: " ", with: "") }
}

/// Arguments with negative numbers joined to their options, `--top -1` as `--top=-1`: alone they look like options, and the error would be
/// that a value is missing.
func joiningNegativeNumbers(_ arguments: [String]) -> [String] {
    // The rest of an import is the business of another program.
    guard arguments.first != "import" else { return arguments }
    var joined: [String] = []
    for argument in arguments {
        if let option = joined.last, option.hasPrefix("--"), option.count > 2, !option.contains("="),
            argument.hasPrefix("-"), argument.dropFirst().first?.isNumber == true
        {
            joined[joined.count - 1] = option + "=" + argument
        } else {
            joined.append(argument)
        }
    }
    return joined
}
