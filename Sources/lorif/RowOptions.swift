import ArgumentParser
import Engine

/// `--ids FILE` and `--where CONDITION`: the rows that a command is about.
struct RowOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A file of ids, or - for standard input: one on each line, or a JSON array.", valueName: "file"))
    var ids: String?
    @Option(
        help: ArgumentHelp(
            "The examples that pass, as in \"source = 'bible' and length > 64\".", valueName: "condition"))
    var `where`: String?

    func validate() throws {
        if ids != nil, self.where != nil { throw ValidationError("give --ids or --where, not both") }
    }

    /// nil when neither is given.
    func selection() throws -> RowSelection? {
        if let ids { return .identifiers(try readIdentifiers(fromFile: ids)) }
        if let condition = self.where { return .filter(try RowFilter(parsing: condition)) }
        return nil
    }
}
