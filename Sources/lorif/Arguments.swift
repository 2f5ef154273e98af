public import ArgumentParser
public import Engine
public import Schema

/// The encodings' names for help texts.
let encodingNames = Encoding.allCases.map(\.name).joined(separator: ", ")

extension Encoding: ExpressibleByArgument {
    /// The encoding of that name.
    public init?(argument: String) { self.init(name: argument) }
    /// What help texts show.
    public var defaultValueDescription: String { name }
    /// Every name.
    public static var allValueStrings: [String] { allCases.map(\.name) }
}

extension Engine.Method: ExpressibleByArgument {}

extension DuplicatePolicy: ExpressibleByArgument {}
