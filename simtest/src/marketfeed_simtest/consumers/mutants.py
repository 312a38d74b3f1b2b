"""Defects of one line of the consumer, as in `marketfeed_simtest.mutants`: sessions of consumers must find each."""

from typing import Final

from marketfeed_simtest.mutants import Mutant


def _mutant(name: str, file: str, old: str, new: str, survives: str = "") -> Mutant:
    return Mutant(f"consumer: {name}", file, old, new, survives, "marketfeed_consumers")


CONSUMER_MUTANTS: Final[tuple[Mutant, ...]] = (
    _mutant(
        "offsets are committed before the rows",
        "storage/transaction.py",
        '    at("offsets set")\n',
        '    connection.commit()\n    at("offsets set")\n',
    ),
    _mutant(
        "an unknown outcome counts as success",
        "storage/writer.py",
        "        connection.commit()\n        self._at(",
        "        try:\n            connection.commit()\n        except psycopg.OperationalError as lost:\n"
        "            if lost.sqlstate != '40001':\n                connection.close()\n            else:\n"
        "                raise\n        self._at(",
    ),
    _mutant(
        "a serialization failure at COMMIT drops the batch",
        "storage/writer.py",
        "        connection.commit()\n        self._at(",
        "        try:\n            connection.commit()\n        except psycopg.errors.SerializationFailure:\n"
        "            connection.rollback()\n        self._at(",
    ),
    _mutant(
        "an unknown outcome is not looked up",
        "storage/writer.py",
        "if tried and is_committed(connection, plan, owner):",
        "if False:",
        survives="the batch is read again from the stored offset: only counters differ",
    ),
    _mutant(
        "an earlier own commit counts as another consumer's",
        "kafka/leases.py",
        "    positions = committed_positions(connection, plan, owner)\n",
        "    positions = {}\n",
    ),
    _mutant(
        "a topic that is created again is not detected while it is read",
        "kafka/monitor.py",
        "                raise LogLost({(topic, number): reason})\n",
        "                pass\n",
    ),
    _mutant(
        "a lost ownership is not detected",
        "storage/transaction.py",
        'if len(moved) != len(rows) or ("",) in moved:',
        "if False:",
    ),
    _mutant(
        "batches behind a failed one are dropped",
        "storage/pipeline.py",
        "                batches.append(flight.batch)\n",
        "                pass\n",
    ),
    _mutant(
        "dropped batches are not read again",
        "storage/pipeline.py",
        "            self._reader.rewind(self._positions)\n",
        "            pass\n",
    ),
    _mutant(
        "records of revoked partitions stay in the batch",
        "kafka/group_member.py",
        "        self._reader.drop(gone)\n",
        "        pass\n",
    ),
    _mutant(
        "a revocation does not wait for in-flight batches",
        "kafka/group_member.py",
        "    def _release(self, partitions: list[TopicPartition], seconds: float) -> None:\n"
        "        self._pipeline.drain(seconds)\n",
        "    def _release(self, partitions: list[TopicPartition], seconds: float) -> None:\n        pass\n",
    ),
    _mutant(
        "a batch in whose middle partitions are revoked is stored",
        "kafka/waiting.py",
        "            self._interrupted = True\n",
        "            pass\n",
    ),
    _mutant(
        "a truncated log is read from the stored offset",
        "kafka/truncation.py",
        "                found[partition] = truncation_refusal(*partition, asked[partition].next_offset, "
        "error.str())\n",
        "                pass\n",
    ),
    _mutant(
        "a refusal is not stored",
        "kafka/group_member.py",
        "            self._waiting.wait_in_callback(self._writer.submit_refusals(owner, ours), _REFUSAL_SECONDS)\n",
        "            pass\n",
    ),
    _mutant(
        "a topic that was created again is read at start",
        "kafka/leases.py",
        "if topic_id and assigned.topic_id and topic_id != assigned.topic_id:",
        "if False:",
    ),
    _mutant(
        "a start does not check whether Kafka has deleted records",
        "kafka/leases.py",
        "    if next_offset < assigned.low:\n",
        "    if False:\n",
        survives="Kafka's client returns an error at the first read, and that is a refusal, too",
    ),
    _mutant(
        "a lost log does not end reading",
        "kafka/reader.py",
        "            raise LogLost({partition: truncation_refusal(*partition, owned.next_offset, error.str())})\n",
        "            return\n",
    ),
    _mutant(
        "an offset is one too far",
        "kafka/decode.py",
        "(record.offset() or 0) + 1",
        "(record.offset() or 0) + 2",
    ),
    _mutant(
        "the offset committed to Kafka is one too high",
        "storage/pipeline.py",
        "self.hints[step.topic, step.partition] = step.next_offset",
        "self.hints[step.topic, step.partition] = step.next_offset + 1",
    ),
    _mutant(
        "undecodable records are dropped",
        "kafka/decode.py",
        "                self.dead_letters.append(dead_letter(record, str(error), table))\n        return messages",
        "                pass\n        return messages",
    ),
    _mutant(
        "the neighbour of a refused message is rejected",
        "storage/quarantine.py",
        "        yield PoisonRecord(rest[taken], reason, taken)",
        "        yield PoisonRecord(rest[taken - 1], reason, taken)",
    ),
    _mutant(
        "a dead letter is stored, and its record too",
        "kafka/decode.py",
        "            if reason is None:\n                kept.append(record)",
        "            if True:\n                kept.append(record)",
    ),
    _mutant(
        "a missing range is not stored",
        "planning/stored_ranges.py",
        "        opened = (\n            MissingRange(ranges.last_id + 1, first.trade_id - 1, ranges.last_time_us, "
        "first.trade_time_us),\n        )\n",
        "        opened = ()\n",
    ),
    _mutant(
        "conflicts are not stored",
        "storage/transaction.py",
        "    _add_conflicts(connection, written, now_us)\n",
        "",
    ),
    _mutant(
        "a late trade is in no candle",
        "storage/transaction.py",
        "        [*plan.candles, *(one for key, new in looked_up.items() if new for one in candles(key, new))],",
        "        [*plan.candles],",
        survives="rows are verified before writing only where another program writes to the table, which no "
        "session does: covered by test_consumer_writer.py",
    ),
    _mutant(
        "control records at the end are not skipped",
        "kafka/monitor.py",
        "            self._on_read_to_end(on_read_to_end)\n",
        "            pass\n",
    ),
    _mutant(
        "retention deletes the newest row",
        "admin/retention.py",
        "yield from _sweep(connection, rows, last_id, limit, retry, sleep)",
        "yield from _sweep(connection, rows, last_id + 1, limit, retry, sleep)",
    ),
    _mutant(
        "retention leaves old candles",
        "admin/retention.py",
        "            last_id = limit.before_us  #",
        "            last_id = EARLIEST_US  #",
    ),
    _mutant(
        "retention leaves dead letters",
        "admin/retention.py",
        "    while deleted := retry(step):\n",
        "    while table != dead_letters.NAME and (deleted := retry(step)):\n",
    ),
    _mutant(
        "stored quotes have the venue's time as time of receipt",
        "database/tables/book_tickers.py",
        "q.received_time_us",
        "(q.event_time_us or q.received_time_us)",
    ),
    _mutant(
        "a topic whose log has grown is refused",
        "kafka/leases.py",
        "    if next_offset > assigned.high:\n",
        "    if next_offset > assigned.high or assigned.high > next_offset + 40:\n",
    ),
    _mutant(
        "candles are recomputed from the rows that retention left",
        "admin/rebuild.py",
        'bounds = {**symbol, **chunk._asdict(), "from_us": max(chunk.from_us, whole_from_us)}',
        'bounds = {**symbol, **chunk._asdict(), "from_us": chunk.from_us}',
    ),
    _mutant(
        "reset-offsets to earliest sets the end",
        "admin/offsets.py",
        'return low if to == "earliest" else high',
        "return high",
    ),
    _mutant(
        "the audit reports every missing range as expired",
        "admin/resolution.py",
        "    old = limit_us - MARGIN_US\n",
        "    old = now_us\n",
    ),
    _mutant(
        "the audit ignores conflicts",
        "admin/audit_report.py",
        "            and not self.conflicts\n",
        "",
    ),
)
